"""What the recipe says about training: phases, learning rates, the ledger, checkpoints, the optimizer."""

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PositiveInt,
    model_validator,
)

from aurora_m.model import LoraConfig
from aurora_m.tokens import FimConfig
from aurora_m.workspace import Count, RecipeError, Section

from .guardrails_config import GuardrailsConfig, guarded_domains, with_replay
from .lineage import phase_starts
from .merge_config import MergeConfig, parse_merge
from .phase_config import PhaseConfig

ActivationCheckpointing = Literal["none", "selective", "full"]


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

    `final_phase`: whose model is tuned, evaluated and released (default: the last of the list).
    `activation_checkpointing`: what a layer keeps for its backward pass; the rest is computed again. `selective` keeps
    what matrix products and attention return, `full` only the layer's input. `float8`: the layers' matrix products are
    computed in it, scaled by tensor or by row, on GPUs that can. `embeddings_first`: for so many tokens, within the
    first phase, only the rows of tokens learn (embedding and head); such a step takes as long as any other.
    """

    phases: list[PhaseConfig] = Field(min_length=1)
    final_phase: str | None = None
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
    merge: Annotated[MergeConfig | None, BeforeValidator(parse_merge)] = None
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
        if reserved := {"initial", "superseded", "merged", "merging"} & set(names):
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
        if self.final_phase is not None and self.final_phase not in names:
            raise ValueError(f"final_phase {self.final_phase!r} is no phase; the phases are {', '.join(names)}")
        return self

    @model_validator(mode="after")
    def _merge_has_a_budget(self) -> "TrainConfig":
        if self.merge and self.merge.budget is None and not self.guardrails:
            raise ValueError(
                "merge needs a budget, how much worse known domains may get: give train.guardrails, such as "
                "{en: 1%, code: 1%}, or train.merge: {budget: 1%}"
            )
        return self

    @model_validator(mode="after")
    def _branches_begin_within_phases(self) -> "TrainConfig":
        starts = phase_starts(self.phases)
        for number, phase in enumerate(self.phases):
            if phase.origin is None:
                continue
            name, tokens = phase.origin
            earlier = {one.name: one for one in self.phases[:number]}
            if name not in earlier:
                known = ", ".join(earlier) or "none: the first phase begins with the base model, leave `from` out"
                raise ValueError(f"phase {phase.name}: from {name!r} is no phase before it; those are {known}")
            first, last = starts[name], starts[name] + earlier[name].step_tokens
            if tokens is not None and not first < tokens <= last:
                raise ValueError(
                    f"phase {phase.name}: from {phase.from_}: phase {name} goes from {first} to {last} tokens of the "
                    f"run; branch above the first and up to the last, or write from: {name} for its end"
                )
            if tokens is not None and name == "base" and tokens < last:
                raise ValueError(
                    f"phase {phase.name}: from {phase.from_}: the ledger compares with the end of phase base; "
                    "branch from there (from: base), or give that phase another name"
                )
        return self
