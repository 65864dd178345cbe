"""The learning rate: a pure function of the tokens seen, so that no stop, resume or batch size can shift it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from aurora_m.workspace import RecipeError

from .lineage import parents, phase_starts
from .phase_config import PhaseConfig


@dataclass(frozen=True)
class Segment:
    """One warm-up and decay. All positions in tokens; `start` counts from the start of the run."""

    start: int
    warmup: int
    span: int  # from start to the end of the decay, warm-up included
    peak: float
    to: float
    decay: str
    first: float = 0.0  # where the warm-up begins

    def rate(self, tokens: int) -> float:
        """The learning rate of the step that ends at `tokens` (so the first step has one, and the last has `to`)."""
        seen = tokens - self.start
        if seen < self.warmup:
            return self.first + (self.peak - self.first) * seen / self.warmup
        done = min(1.0, (seen - self.warmup) / max(1, self.span - self.warmup))
        return self.to + (self.peak - self.to) * _remaining(self.decay, done)


def _remaining(decay: str, done: float) -> float:
    """How much of the way from `peak` down to `to` is left after the share `done` of the decay."""
    if decay == "constant":
        return 1.0
    if decay == "linear":
        return 1.0 - done
    if decay == "1-sqrt":  # Hägele et al. 2024: the better shape for a short final decay
        return 1.0 - math.sqrt(done)
    return 0.5 * (1.0 + math.cos(math.pi * done))


def build_segments(
    phases: list[PhaseConfig], base_rate: float | None = None, starts: Mapping[str, int] | None = None
) -> list[Segment]:
    """The segment every phase follows; phases with `continues: true` share that of the phase they begin after.

    `starts`: the tokens of the run at which phases began, where that is known.
    `base_rate` is what the base's own training ended with, where it is known.

    Raises:
        RecipeError: the first phase continues something, or takes up a rate that is not known; a rate that is taken up
            is below the one its decay ends with.
    """
    segments: dict[str, Segment] = {}
    begins = phase_starts(phases, starts)
    for phase, parent in zip(phases, parents(phases), strict=True):
        if phase.lr.continues:
            if parent is None:
                raise RecipeError(f"phase {phase.name}: lr.continues needs a phase before it; give lr.peak instead")
            segments[phase.name] = segments[parent]
        else:
            before = base_rate if parent is None else segments[parent].rate(begins[phase.name])
            segments[phase.name] = segment_of(phase, begins[phase.name], before)
    return list(segments.values())


def segment_of(phase: PhaseConfig, start: int = 0, last: float | None = None) -> Segment:
    """The segment that a phase beginning at `start` tokens opens; `last` is the rate that ended there.

    Raises:
        RecipeError: it takes up a rate that is not known, or 0, or one below that its decay ends with.
    """
    lr = phase.lr
    assert lr.peak is not None, f"phase {phase.name} continues a segment and opens none"
    if lr.needs_last and last is None:
        raise RecipeError(
            f"phase {phase.name}: lr takes up the base's last rate, and the base has no trainer_state.json that "
            "records one; write the number in the place of `last`"
        )
    peak, first = (last if rate == "last" else rate for rate in (lr.peak, lr.start))
    assert peak is not None and first is not None
    if lr.peak == "last" and (not peak or lr.to > peak):
        raise RecipeError(
            f"phase {phase.name}: lr.peak is the last rate, {peak:g}, and a decay to {lr.to:g} cannot begin there; "
            "give lr.peak a number and a warm-up"
        )
    return Segment(
        start=start,
        warmup=phase.warmup_tokens,
        span=lr.over or phase.step_tokens,
        peak=peak,
        to=lr.to,
        decay=lr.decay,
        first=first,
    )
