"""What the recipe says about training: phases, learning rates, the ledger, checkpoints, the optimizer."""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveInt, model_validator

from aurora_m.model import LoraConfig
from aurora_m.tokens import FimConfig
from aurora_m.workspace import Count, RecipeError, Section, Share, parse_count

from .guardrails_config import GuardrailsConfig, guarded_domains, with_replay

ActivationCheckpointing = Literal["none", "selective", "full"]

_STEPS_PATTERN = re.compile(r"(\S+)\s*steps?")


def parse_warmup(value: Any) -> int | str:
    """A warm-up as tokens (`2M`) or as steps of its phase (`2000 steps`, kept as text).

    Raises:
        ValueError: it is neither.
    """
    steps = _STEPS_PATTERN.fullmatch(str(value).strip())
    warmup = parse_count(steps[1] if steps else value)
    if warmup < 0:
        raise ValueError(f"warmup {value!r} is negative; write tokens such as 2M, or '2000 steps'")
    return f"{warmup} steps" if steps else warmup


class LearningRate(Section):
    """A learning-rate segment: a linear warm-up to `peak`, then a decay to `to`; or the previous phase's goes on.

    `over` is the number of tokens from the segment's start to the end of the decay (default: the phase's tokens).
    Longer than the phase, the phase stops on the slope; a following phase with `continues: true` goes on from there.
    """

    peak: float | None = Field(default=None, gt=0)
    warmup: Annotated[int | str, BeforeValidator(parse_warmup)] = 0
    decay: Literal["cosine", "linear", "constant", "1-sqrt"] = "cosine"
    to: float = Field(default=0.0, ge=0)
    over: Annotated[Count, Field(gt=0)] | None = None
    continues: bool = False

    def warmup_tokens(self, tokens_per_step: int) -> int:
        """The warm-up in tokens."""
        return int(self.warmup.split()[0]) * tokens_per_step if isinstance(self.warmup, str) else self.warmup

    @model_validator(mode="after")
    def _one_or_the_other(self) -> "LearningRate":
        others = sorted(self.model_fields_set - {"continues"})
        if self.continues and others:
            raise ValueError(f"a learning rate that continues the previous phase's takes no {', '.join(others)}")
        if not self.continues and self.peak is None:
            raise ValueError("peak is missing; write the highest learning rate, such as 1e-4, or continues: true")
        if self.peak is not None and self.to > self.peak:
            raise ValueError(f"to {self.to} is above peak {self.peak}; a decay ends at or below its peak")
        return self


class PhaseConfig(Section):
    """A span of training: its tokens, whom they go to, and its learning-rate segment."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=60)
    tokens: Annotated[Count, Field(gt=0)]
    mixture: dict[str, Share]
    sequence_length: Annotated[Count, Field(gt=0)]
    tokens_per_step: Annotated[Count, Field(gt=0)]
    lr: LearningRate

    @property
    def steps(self) -> int:
        """Optimizer steps: the nearest whole number to tokens / tokens_per_step, at least 1."""
        return max(1, (self.tokens + self.tokens_per_step // 2) // self.tokens_per_step)

    @property
    def sequences_per_step(self) -> int:
        return self.tokens_per_step // self.sequence_length

    @model_validator(mode="after")
    def _whole_sequences_and_steps(self) -> "PhaseConfig":
        if self.tokens_per_step % self.sequence_length:
            nearest = max(1, round(self.tokens_per_step / self.sequence_length)) * self.sequence_length
            raise ValueError(
                f"phase {self.name}: tokens_per_step {self.tokens_per_step} is not a multiple of sequence_length "
                f"{self.sequence_length}; the nearest is {nearest}"
            )
        if self.tokens < self.tokens_per_step:
            raise ValueError(
                f"phase {self.name}: {self.tokens} tokens are less than one step of {self.tokens_per_step}; "
                "give the phase more tokens or lower tokens_per_step"
            )
        warmup, span = self.lr.warmup_tokens(self.tokens_per_step), self.lr.over or self.tokens
        if not self.lr.continues and warmup > span:
            raise ValueError(
                f"phase {self.name}: a warm-up of {warmup} tokens does not fit in a schedule of {span}; "
                "shorten lr.warmup or lengthen lr.over"
            )
        return self


class OptimizerConfig(Section):
    """AdamW. `clip` is the largest gradient norm let through; weight decay acts on matrices only."""

    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.95, ge=0, lt=1)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.1, ge=0)
    clip: float = Field(default=1.0, gt=0)


class GuardianConfig(Section):
    """Steps that are not taken, and when training goes back for them.

    A step is left out when its loss or gradient norm is not finite, or more than `sigma` deviations above the mean of
    the last `window` steps (null: only where not finite). After `patience` such steps in a row, training goes back to
    the last good checkpoint and leaves their documents out from there on, at most `rollbacks` times a phase.
    """

    sigma: float | None = Field(default=6.0, gt=0)
    window: int = Field(default=128, ge=8)
    patience: PositiveInt = 4
    rollbacks: int = Field(default=3, ge=0)


class LedgerConfig(Section):
    """Every how many tokens all held-out sets are scored, and on how many tokens of each, or by domain, at most."""

    every: Annotated[Count, Field(gt=0)]
    heldout_tokens: Annotated[Count, Field(gt=0)] | dict[str, Annotated[Count, Field(gt=0)]] | None = None


class CheckpointConfig(Section):
    """Every how many tokens a checkpoint is written, and which are kept: the newest `keep` of each phase, and for good
    the phase's last and the first at or after each multiple of `keep_every` tokens of the run.

    `asynchronous`: it is written while training goes on, from a copy in host memory.
    """

    every: Annotated[Count, Field(gt=0)]
    keep: PositiveInt = 2
    keep_every: Annotated[Count, Field(gt=0)] | None = None
    asynchronous: bool = True


class WandbConfig(Section):
    """Weights & Biases: where the run goes. `offline` writes into the run folder only, for `wandb sync`."""

    project: str = Field(min_length=1)
    entity: str | None = None
    mode: Literal["online", "offline"] = "online"


class TelemetryConfig(Section):
    """Who is told what goes into `metrics.jsonl`, and whether energy is measured where counters can be read."""

    tensorboard: bool = False
    wandb: WandbConfig | None = None
    energy: bool = True


class ParallelConfig(Section):
    """How the ranks of a torchrun job share the work; alone (one process) nothing of it applies.

    `data`: ranks that each take a part of the sequences (auto: all that the other degrees leave). `tensor`: ranks that
    share each matrix; with `sequence` they share the tokens between the matrices too. `pipeline`: ranks that hold
    successive layers, in `stages_per_rank` runs of layers each (more than 1: the interleaved schedule, else 1F1B).
    """

    data: Literal["auto"] | PositiveInt = "auto"
    tensor: PositiveInt = 1
    pipeline: PositiveInt = 1
    sequence: bool = True
    stages_per_rank: PositiveInt = 1

    def degrees(self, world_size: int) -> tuple[int, int, int]:
        """Degrees (pipeline, data, tensor), whose product is `world_size`.

        Raises:
            RecipeError: there is no such.
        """
        rest = self.pipeline * self.tensor
        data = world_size // rest if self.data == "auto" else self.data
        if not data or rest * data != world_size:
            wanted = f"pipeline {self.pipeline} x data {self.data} x tensor {self.tensor}"
            fix = f"a multiple of {rest}" if self.data == "auto" else f"{rest * self.data}"
            raise RecipeError(f"parallel: {wanted} do not make {world_size} ranks; start {fix} or change the degrees")
        return self.pipeline, data, self.tensor

    @model_validator(mode="after")
    def _stages_need_a_pipeline(self) -> "ParallelConfig":
        if self.stages_per_rank > 1 and self.pipeline == 1:
            raise ValueError("parallel.stages_per_rank needs parallel.pipeline above 1")
        return self


class TrainConfig(Section):
    """The `train` section of a recipe.

    `activation_checkpointing`: what a layer keeps for its backward pass; the rest is computed again. `selective` keeps
    what matrix products and attention return, `full` only the layer's input. `float8`: the layers' matrix products are
    computed in it, scaled by tensor or by row, on GPUs that can. `embeddings_first`: for so many tokens, within the
    first phase, only the rows of tokens learn (embedding and head); such a step takes as long as any other.
    """

    phases: list[PhaseConfig] = Field(min_length=1)
    ledger: LedgerConfig
    checkpoint: CheckpointConfig
    optimizer: OptimizerConfig = OptimizerConfig()
    guardian: GuardianConfig = GuardianConfig()
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    float8: Literal["tensorwise", "rowwise"] | None = None
    compile: bool = False
    micro_batch: PositiveInt | None = None
    activation_checkpointing: ActivationCheckpointing = "none"
    embeddings_first: Annotated[Count, Field(gt=0)] | None = None
    fim: FimConfig | None = None
    lora: LoraConfig | None = None
    threads: PositiveInt | None = None
    parallel: ParallelConfig = ParallelConfig()
    telemetry: TelemetryConfig = TelemetryConfig()
    guardrails: GuardrailsConfig | None = None

    @model_validator(mode="before")
    @classmethod
    def _replay_names_its_domains(cls, value: Any) -> Any:
        """In a mixture, `replay` stands for even shares of the guarded domains."""
        if not isinstance(value, dict) or not isinstance(value.get("phases"), list):
            return value
        guarded = guarded_domains(value.get("guardrails"))
        return value | {"phases": [with_replay(phase, guarded) for phase in value["phases"]]}

    @model_validator(mode="after")
    def _phases_follow_each_other(self) -> "TrainConfig":
        names = [phase.name for phase in self.phases]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"phase {twice[0]} appears twice; each phase needs its own name")
        if reserved := {"initial", "superseded"} & set(names):
            raise ValueError(f"phase name {reserved.pop()!r} is taken by a folder of the train stage; choose another")
        if "base" in names[1:]:
            raise ValueError(f"phase base trains from scratch and must come first, not after {names[0]}")
        if (self.embeddings_first or 0) > self.phases[0].tokens:
            raise ValueError(
                f"embeddings_first {self.embeddings_first} is more than the {self.phases[0].tokens} tokens of phase "
                f"{names[0]}; shorten it"
            )
        if self.embeddings_first and (self.lora or self.parallel.pipeline > 1):
            raise ValueError("embeddings_first does not go with lora, nor with parallel.pipeline above 1")
        if self.phases[0].lr.continues:
            raise ValueError(f"phase {names[0]}: lr.continues needs a phase before it; give lr.peak instead")
        return self
