"""The learning rate: a pure function of the tokens seen, so that no stop, resume or batch size can shift it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from aurora_m.workspace import RecipeError

from .config import PhaseConfig, parents, phase_starts


@dataclass(frozen=True)
class Segment:
    """One warm-up and decay. All positions in tokens; `start` counts from the start of the run."""

    start: int
    warmup: int
    span: int  # from start to the end of the decay, warm-up included
    peak: float
    to: float
    decay: str

    def rate(self, tokens: int) -> float:
        """The learning rate of the step that ends at `tokens` (so the first step has one, and the last has `to`)."""
        seen = tokens - self.start
        if seen < self.warmup:
            return self.peak * seen / self.warmup
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


def build_segments(phases: list[PhaseConfig], starts: Mapping[str, int] | None = None) -> list[Segment]:
    """The segment every phase follows; phases with `continues: true` share that of the phase they begin after.

    `starts`: the tokens of the run at which phases began, where that is known.

    Raises:
        RecipeError: the first phase continues something.
    """
    segments: dict[str, Segment] = {}
    begins = phase_starts(phases, starts)
    for phase, parent in zip(phases, parents(phases), strict=True):
        if phase.lr.continues:
            if parent is None:
                raise RecipeError(f"phase {phase.name}: lr.continues needs a phase before it; give lr.peak instead")
            segments[phase.name] = segments[parent]
        else:
            segments[phase.name] = segment_of(phase, begins[phase.name])
    return list(segments.values())


def segment_of(phase: PhaseConfig, start: int = 0) -> Segment:
    """The segment that a phase beginning at `start` tokens opens."""
    assert phase.lr.peak is not None, f"phase {phase.name} continues a segment and opens none"
    return Segment(
        start=start,
        warmup=phase.lr.warmup_tokens(phase.tokens_per_step),
        span=phase.lr.over or phase.steps * phase.tokens_per_step,
        peak=phase.lr.peak,
        to=phase.lr.to,
        decay=phase.lr.decay,
    )
