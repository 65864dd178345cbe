"""Guardrails at work in a run: asked after each measurement, their decisions applied, kept and said."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aurora_m.tokens import TrainBatches
from aurora_m.workspace import AuroraError, Progress, RecipeError, atomic_path, format_count

from .config import PhaseConfig
from .guardrails import Decision, Guardrails
from .guardrails_config import GuardrailsConfig
from .schedule import Segment
from .state import TrainingState
from .trainer import Steering


def check_guarded(config: GuardrailsConfig, heldout: list[str], trained: list[str]) -> None:
    """Checks that what is guarded can be measured and replayed.

    Raises:
        RecipeError: a guarded domain is unknown, or has no held-out or no training text.
    """
    for domain in config.budget:
        if domain not in heldout or domain not in trained:
            lacks = "held-out" if domain not in heldout else "training"
            both = ", ".join(sorted(set(heldout) & set(trained)))
            raise RecipeError(
                f"train.guardrails: domain '{domain}' has no {lacks} text; guard one of {both}, or give it sources"
            )


def open_steering(
    config: GuardrailsConfig,
    batches: TrainBatches,
    reference_step: int,
    out: Path,
    progress: Progress,
    is_main: bool,
    together: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = list,
) -> Callable[[TrainingState, PhaseConfig, Segment], Steering]:
    """What the loop asks after each measurement. Phases of guarded domains only, and a base's own, are left alone.

    `together` adds the decisions of phases that the state does not come from, for the file.
    """

    def steer(state: TrainingState, phase: PhaseConfig, segment: Segment) -> Steering:
        if state.step <= reference_step or set(phase.mixture) <= set(config.budget):
            return Steering()
        row = state.ranks.from_main(_decide(config, state, batches, phase, segment))
        state.decisions.append(row)
        if is_main:
            write_decisions(together(state.decisions), out)
        last = state.phase_step == phase.steps
        say_decision(row, config, progress, last=last)
        stop = explain_infeasible(row, config, phase) if row["infeasible"] and config.infeasible == "stop" else None
        return Steering(
            change=None if last else lambda: batches.change_mixture(row["shares"], "guardrails"),
            stop=None if last else stop,
        )

    return steer


def refuse_given_up(state: TrainingState, config: GuardrailsConfig, phases: list[PhaseConfig]) -> None:
    """Stops a run again that its guardrails stopped, where the recipe is the same.

    Raises:
        AuroraError: the budget was given up, and nothing has changed since.
    """
    own = [row for row in state.decisions if row["phase"] == state.phase]
    if config.infeasible != "stop" or not own or not own[-1]["infeasible"]:
        return
    budgets = {domain: outlook["budget"] for domain, outlook in own[-1]["domains"].items()}
    if budgets == config.budget and own[-1]["ceiling"] == config.ceiling:
        phase = next(phase for phase in phases if phase.name == state.phase)
        raise AuroraError(f"phase {phase.name}, step {state.step}: {explain_infeasible(own[-1], config, phase)}")


def _decide(
    config: GuardrailsConfig, state: TrainingState, batches: TrainBatches, phase: PhaseConfig, segment: Segment
) -> dict[str, Any]:
    start = state.tokens - phase.step_sizes.tokens(state.phase_step)
    own = [row for row in state.decisions if row["phase"] == phase.name]
    decision: Decision = Guardrails(config, phase, segment, start).decide(
        state.ledger, batches.history, own, step=state.step, tokens=state.tokens
    )
    return decision.row() | {"ceiling": config.ceiling}


def write_decisions(decisions: list[dict[str, Any]], out: Path) -> None:
    """Writes guardrails.jsonl anew: it is a row a measurement, and a run that goes back has fewer."""
    with atomic_path(out / "guardrails.jsonl") as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in decisions:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def say_decision(row: dict[str, Any], config: GuardrailsConfig, progress: Progress, *, last: bool) -> None:
    """One line where something changes, and one at a phase's end."""
    shares = ", ".join(f"{domain} {outlook['share']:.1%}" for domain, outlook in row["domains"].items())
    if last:
        missed = [
            f"{domain} {outlook['change']:+.2%} of {outlook['budget']:.1%}"
            for domain, outlook in row["domains"].items()
            if outlook["change"] > outlook["budget"]
        ]
        said = f"over the budget: {', '.join(missed)}" if missed else "all budgets are held"
        progress.say(f"guardrails: phase {row['phase']} ended; {said}")
    elif row["infeasible"] and config.infeasible != "stop":
        factor = f", learning rate times {row['rate_factor']:.2g}" if row["rate_factor"] < 1 else ""
        progress.say(
            f"warning: guardrails: the budget of {', '.join(row['infeasible'])} cannot be held; going on with replay "
            f"{shares}{factor} ({row['why']})"
        )
    elif row["verdict"] in ("raise", "lower"):
        progress.say(f"guardrails: at {format_count(row['tokens'])} tokens replay goes to {shares} ({row['why']})")


def explain_infeasible(row: dict[str, Any], config: GuardrailsConfig, phase: PhaseConfig) -> str:
    """What cannot be held, what it would take and cost, and what to do."""
    left = round((1 - row["progress"]) * phase.step_tokens)
    said = []
    for domain in row["infeasible"]:
        outlook = row["domains"][domain]
        needed = outlook["needed"]
        takes = (
            "and no share of replay would hold it at this learning rate"
            if needed is None
            else f"and it would take {needed:.0%} of the tokens, {format_count(needed * left)} of those left"
        )
        said.append(
            f"{domain} stands at {outlook['change']:+.1%} and would end at {outlook['forecast']:+.1%} "
            f"({outlook['low']:+.1%} to {outlook['high']:+.1%}) with all replay under the ceiling of "
            f"{config.ceiling:.0%}, {takes} (budget {outlook['budget']:.1%})"
        )
    return (
        f"guardrails: {'; '.join(said)}. Raise the budget or the ceiling, lower lr.peak, or set "
        "train.guardrails.infeasible to 'continue' or 'lower rate', and run the same command again"
    )
