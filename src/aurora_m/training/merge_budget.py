"""What a merge may cost and what it must keep: the budget of each guarded domain, and the domains that were learned."""

from pathlib import Path
from typing import Any

from aurora_m.model import BaseConfig
from aurora_m.workspace import RecipeError

from .config import TrainConfig
from .ledger import heldout_domains
from .merge_config import parse_budget


def parse_budgets(values: list[str] | None) -> dict[str, float] | float | None:
    """`1%`, or `en=1%` several times, as budgets; None where nothing is given.

    Raises:
        RecipeError: a value is no budget, or one for all stands beside others.
    """
    if not values:
        return None
    parts = [value.rpartition("=") for value in values]
    budget = {domain.strip(): share for domain, _, share in parts}
    if "" in budget and len(values) > 1:
        raise RecipeError(
            f"--budget {' '.join(values)}: give one share for all known domains, or DOMAIN=SHARE for some"
        )
    try:
        return parse_budget(budget.get("", budget))
    except ValueError as error:
        raise RecipeError(f"--budget {' '.join(values)}: {error}") from None


def check_merge(config: TrainConfig, base: BaseConfig, tokens: Path) -> None:
    """Finds out before training whether there will be anything to merge, and a budget for it.

    Raises:
        RecipeError: as `merge_aim`.
    """
    if config.merge:
        phases = [{"name": phase.name, "mixture": phase.mixture} for phase in config.phases]
        merge_aim(config, base, phases, heldout_domains(tokens))


def merge_aim(
    config: TrainConfig, base: BaseConfig, phases: list[dict[str, Any]], domains: list[str]
) -> tuple[dict[str, float], list[str]]:
    """How much worse each guarded domain may get, and the domains that were to be learned.

    The base knows what its phase trained on and what `base.knows` names. Learned are the other, unguarded domains that
    a phase trained on; where there are none, all that are not guarded.

    Args:
        phases: rows with `name` and `mixture`, as in `train.json`.
        domains: those with held-out text.

    Raises:
        RecipeError: there is no budget, or it cannot be held against what is scored; no phase followed the base.
    """
    own_base = not base.path and phases[0]["name"] == "base"
    if own_base and len(phases) == 1:
        raise RecipeError("train.merge: the only phase trains the base itself, so there is nothing to merge it with")
    mixtures = [{domain for domain, share in phase["mixture"].items() if share} for phase in phases]
    known = set(base.knows) | (mixtures[0] if own_base else set())
    budget = _budget(config, [domain for domain in domains if domain in known])
    if unscored := [domain for domain in budget if domain not in domains]:
        raise RecipeError(
            f"train.merge: the budget names {', '.join(unscored)}, of which there is no held-out text; it can be held "
            f"for {', '.join(domains)}"
        )
    learned = [domain for domain in domains if domain not in budget and domain in set().union(*mixtures) - known]
    learned = learned or [domain for domain in domains if domain not in budget]
    if not learned:
        raise RecipeError(
            "train.merge: every domain is guarded, so nothing says which of two models learned more; leave those that "
            "training is for out of the budget"
        )
    return budget, learned


def _budget(config: TrainConfig, known: list[str]) -> dict[str, float]:
    budget = config.merge.budget if config.merge else None
    if budget is None and config.guardrails:
        budget = config.guardrails.budget
    if isinstance(budget, float | int):
        if not known:
            raise RecipeError(
                f"train.merge: nobody says what the base knows, so a budget of {budget:.2%} is for no domain; name "
                "them in base.knows, or give a budget by domain, such as {en: 1%}"
            )
        return dict.fromkeys(known, budget)
    if not budget:
        raise RecipeError(
            "merging needs a budget, how much worse known domains may get: give train.guardrails, such as "
            "{en: 1%, code: 1%}, or train.merge: {budget: 1%} (--budget 1% for `aurora-m merge`)"
        )
    return budget
