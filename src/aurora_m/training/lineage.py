"""Which phases lead to which, and where in the run each begins."""

import itertools
from collections.abc import Mapping, Sequence

from .phase_config import PhaseConfig


def phase_starts(phases: Sequence[PhaseConfig], known: Mapping[str, int] | None = None) -> dict[str, int]:
    """The tokens of the run that each phase begins at: as planned, or as `known`. A branch has its parent's before it.

    Phases that begin after one that is not there begin at 0.
    """
    starts: dict[str, int] = {}
    ends: dict[str, int] = {}
    for phase, parent in zip(phases, parents(phases), strict=True):
        branch = phase.origin.tokens if phase.origin else None
        planned = ends.get(parent or "", 0) if branch is None else branch
        starts[phase.name] = (known or {}).get(phase.name, planned)
        ends[phase.name] = starts[phase.name] + phase.step_tokens
    return starts


def parents(phases: Sequence[PhaseConfig]) -> list[str | None]:
    """The phase that each begins after or within; None for the first."""
    before = [None, *(phase.name for phase in phases)]
    return [phase.origin.phase if phase.origin else parent for phase, parent in zip(phases, before, strict=False)]


def ancestry(phases: Sequence[PhaseConfig], name: str) -> list[str]:
    """The phases that lead to one, the first first, itself last."""
    parent_of = dict(zip((phase.name for phase in phases), parents(phases), strict=True))
    line = [name]
    while parent := parent_of[line[0]]:
        line.insert(0, parent)
    return line


def planned_tokens(phases: Sequence[PhaseConfig], name: str) -> dict[str, int]:
    """The tokens of each phase that leads to `name`, of one that it branches from only those up to the branch."""
    by_name, starts = {phase.name: phase for phase in phases}, phase_starts(phases)
    line = ancestry(phases, name)
    tokens = {one: by_name[one].step_tokens for one in line}
    for parent, child in itertools.pairwise(line):
        tokens[parent] = starts[child] - starts[parent]
    return tokens
