"""A batch size that grows over a phase: what each step takes, a pure function of the phase's tokens before it.

Small batches learn more from a token while the model is far from where it is going, and large ones use more devices:
the size follows the noise of the gradient (McCandlish et al. 2018). As in Megatron-LM it rises in equal increments,
each held for an equal part of the ramp.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

from pydantic import Field

from aurora_m.workspace import Count, Section


class BatchRamp(Section):
    """How tokens per step grow: from `start` (`from` in the recipe), `over` so many tokens, `by` so many at a time.

    `by` left out: the greatest common divisor of the first and the last size, so that whatever deals these two to ranks
    deals every size between them.
    """

    start: Annotated[Count, Field(gt=0, alias="from")]
    over: Annotated[Count, Field(gt=0)]
    by: Annotated[Count, Field(gt=0)] | None = None

    def increment(self, to: int) -> int:
        """Tokens by which the size rises at a time, on its way to `to`."""
        return self.by or math.gcd(self.start, to)


@dataclass(frozen=True)
class StepSizes:
    """The sizes of a phase's steps: `sizes[i]` tokens from step `first_steps[i]` on, which begins at `first_tokens[i]`.

    Steps and tokens count from the phase's start.
    """

    sizes: tuple[int, ...]
    first_steps: tuple[int, ...]
    first_tokens: tuple[int, ...]

    def size(self, step: int) -> int:
        """Tokens of a step, the first being 0."""
        return self.sizes[bisect_right(self.first_steps, step) - 1]

    def tokens(self, steps: int) -> int:
        """Tokens of the first so many steps."""
        place = bisect_right(self.first_steps, steps) - 1
        return self.first_tokens[place] + (steps - self.first_steps[place]) * self.sizes[place]

    def steps(self, tokens: int) -> int:
        """The number of steps whose tokens come nearest, at least 1."""
        place = bisect_right(self.first_tokens, tokens) - 1
        size = self.sizes[place]
        return max(1, self.first_steps[place] + (tokens - self.first_tokens[place] + size // 2) // size)


@lru_cache(maxsize=64)
def step_sizes(to: int, start: int, over: int, by: int) -> StepSizes:
    """A step that begins at t tokens takes start + by * floor(n t / over), with n = (to - start) / by; at most `to`."""
    increments = (to - start) // by
    sizes, first_steps, first_tokens = [], [], []
    step = tokens = 0
    for number in range(increments + 1):
        size = start + number * by
        ends = -(-(number + 1) * over // increments) if increments else 0
        if number < increments and tokens >= ends:
            continue  # steps so large, or a ramp so short, that the size is passed over
        sizes.append(size)
        first_steps.append(step)
        first_tokens.append(tokens)
        count = -(-(ends - tokens) // size)
        step, tokens = step + count, tokens + count * size
    return StepSizes(tuple(sizes), tuple(first_steps), tuple(first_tokens))
