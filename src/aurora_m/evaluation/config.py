"""What the recipe says about evaluation."""

from typing import Annotated

from pydantic import Field, PositiveInt

from aurora_m.workspace import Count, Section


class EvaluateConfig(Section):
    """The `evaluate` section of a recipe.

    `heldout_tokens` caps the held-out tokens scored per domain; `prompts_per_group` limits the safety prompts of each
    group for quick runs; both default to all there are.
    """

    heldout_tokens: Annotated[Count, Field(gt=0)] | None = None
    max_new_tokens: PositiveInt = 64
    batch_size: PositiveInt = 16
    prompts_per_group: PositiveInt | None = None
