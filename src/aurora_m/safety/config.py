"""The `align` section of the recipe. Light: imports neither torch nor the data."""

from typing import Literal, Self

from pydantic import Field, model_validator

from ..model import LoraConfig
from ..training import LearningRate
from ..workspace import Count, Section, Share

# What the examples' tokens and losses are counted under in the metrics, beside the domains replayed.
TUNING_DOMAIN = "safety"


class ReplayConfig(Section):
    """Pretraining text mixed into the tuning, so that the model keeps its languages while it learns to refuse.

    `share` is the part of the phase's tokens given to it. `mixture` divides that part over domains (shares sum to 1);
    left out, the mixture of the last training phase is used.
    """

    share: Share = Field(gt=0, lt=1)
    mixture: dict[str, Share] | None = None

    @model_validator(mode="after")
    def _mixture_sums_to_one(self) -> Self:
        if self.mixture is not None and abs(sum(self.mixture.values()) - 1) > 1e-6:
            raise ValueError(f"replay mixture sums to {sum(self.mixture.values()):g}, expected 1.0")
        return self


class AlignConfig(Section):
    """Supervised tuning on explained refusals and on harmless look-alikes, after the last training phase.

    The rows shipped with the package are always used; `data` names more JSON-lines files of the same form. `review`
    says which rows may be trained on: `any` takes unreviewed ones too, `approved` only those a person has approved;
    rejected rows are never used. With `lora` only adapters are tuned, and merged into the tuned model.
    """

    enabled: bool = True
    epochs: float = Field(default=3.0, gt=0)
    tokens_per_step: Count = Field(default=16_384, gt=0)
    sequence_length: Count | None = Field(default=None, gt=1)
    lr: LearningRate = Field(
        default_factory=lambda: LearningRate.model_validate(
            {"warmup": "4 steps", "peak": 2e-5, "decay": "cosine", "to": 2e-6}
        )
    )
    data: list[str] = []
    review: Literal["any", "approved"] = "any"
    replay: ReplayConfig | None = None
    lora: LoraConfig | None = None

    @model_validator(mode="after")
    def _lr_stands_alone(self) -> Self:
        if self.lr.continues:
            raise ValueError("align starts its own learning-rate segment: give lr.peak and lr.to, not `continues`")
        if self.lr.needs_last:
            raise ValueError("align starts its own learning-rate segment: lr.peak and lr.start cannot be `last`")
        return self
