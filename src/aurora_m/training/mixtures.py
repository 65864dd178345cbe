"""The phases' mixtures as shares, once it is known what the domains hold."""

from typing import Any

from aurora_m.tokens import resolve_shares

from .config import PhaseConfig


def epoch_tokens(facts: dict[str, Any]) -> dict[str, int]:
    """Training tokens of an epoch of each domain that has any, from the content of `tokens.json`."""
    trains = {domain: splits["train"] for domain, splits in facts["domains"].items()}
    tokens = {domain: train.get("tokens_per_epoch", train["tokens"]) for domain, train in trains.items()}
    return {domain: count for domain, count in tokens.items() if count}


def resolve_mixture(phase: PhaseConfig, available: dict[str, int]) -> PhaseConfig:
    """The phase with its mixture as shares; itself where it is so written.

    Raises:
        RecipeError: the mixture's domains have no tokens, or too few for its rule.
    """
    if phase.rest is None:
        return phase
    shares = resolve_shares(phase.name, phase.mixture, phase.rest, available, phase.step_tokens)
    return phase.model_copy(update={"mixture": shares, "rest": None})


def mixture_words(phase: PhaseConfig, available: dict[str, int]) -> str:
    """The shares of a phase and the epochs they come to, for people."""
    words = []
    for domain, share in phase.mixture.items():
        held = available.get(domain)
        epochs = f" ({share * phase.step_tokens / held:.2g} epochs)" if held else ""
        words.append(f"{domain} {share:.2%}{epochs}")
    return ", ".join(words)
