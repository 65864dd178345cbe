"""What the recipe says about training: phases, learning rates, the ledger, checkpoints, the optimizer."""

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from aurora_m.model import LoraConfig
from aurora_m.tokens import FimConfig, MixtureRule
from aurora_m.workspace import Count, RecipeError, Section, Share, parse_count

from .batch_ramp import BatchRamp, StepSizes, step_sizes
from .guardrails_config import GuardrailsConfig, guarded_domains, with_replay
from .merge_config import MergeConfig, parse_merge

ActivationCheckpointing = Literal["none", "selective", "full"]

_STEPS_PATTERN = re.compile(r"(\S+)\s*steps?")
_ORIGIN_PATTERN = re.compile(r"(?P<phase>[^@]+)(@(?P<tokens>[^@]+))?")


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
    `infinite` cools down to `to` along a cosine `over` so many tokens and stays there for as long as wanted, so that a
    later phase can anneal from it (Ibrahim et al. 2024; Hägele et al. 2024).
    `start` is where the warm-up begins. `last`, of start or peak, is the rate that the phase before ended with, or of
    the first phase the rate that the base did.
    """

    peak: Annotated[float, Field(gt=0)] | Literal["last"] | None = None
    warmup: Annotated[int | str, BeforeValidator(parse_warmup)] = 0
    start: Annotated[float, Field(ge=0)] | Literal["last"] = Field(default=0.0, exclude_if=lambda start: start == 0)
    decay: Literal["cosine", "linear", "constant", "1-sqrt", "infinite"] = "cosine"
    to: float = Field(default=0.0, ge=0)
    over: Annotated[Count, Field(gt=0)] | None = None
    continues: bool = False

    @property
    def needs_last(self) -> bool:
        """Whether it takes up the rate that what came before ended with."""
        return "last" in (self.peak, self.start)

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
        if isinstance(self.peak, float) and self.to > self.peak:
            raise ValueError(f"to {self.to} is above peak {self.peak}; a decay ends at or below its peak")
        if self.start and self.warmup in (0, "0 steps"):
            raise ValueError(f"start {self.start} is where a warm-up begins, and there is none; give warmup")
        if isinstance(self.start, float) and isinstance(self.peak, float) and self.start > self.peak:
            raise ValueError(f"start {self.start} is above peak {self.peak}; a warm-up begins at or below its peak")
        if self.decay == "infinite" and not (self.to and self.over):
            raise ValueError(
                "decay infinite needs to, the rate it stays at, and over, the tokens until it is there "
                "(with the warm-up): a part of those the phase has"
            )
        return self


class Origin(NamedTuple):
    """Where a phase begins: at the end of another, or where the run had seen so many tokens in it."""

    phase: str
    tokens: int | None


class LossConfig(Section):
    """What a phase's loss weighs: by domain, 1 where none is given, 0 for text that is read and not learned; and the
    tokens, as the tokenizer writes them, that are never a target, such as `<fim_middle>` or the end of documents."""

    weights: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = {}
    ignore: list[str] = []


class PhaseConfig(Section):
    """A span of training: its tokens, whom they go to, and its learning-rate segment.

    `from`: the phase it begins after (`CAP`), or branches from in its middle (`CAP@200B`, tokens of the run); default:
    the phase before it in the list.
    `tokens_per_step` is a number, or `{from, to, over}` (and `by`): then it is kept as `to`, and `ramp` leads there.
    `mixture` is shares that sum to 1, or `{temperature, domains, shares}`, or `{unimax, domains, shares}`: then the
    shares are kept as such, and `rest` is how what they leave is dealt, once it is known what the domains hold.
    """

    model_config = ConfigDict(serialize_by_alias=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=60)
    tokens: Annotated[Count, Field(gt=0)]
    mixture: dict[str, Share]
    rest: MixtureRule | None = Field(default=None, exclude_if=lambda rest: rest is None)
    sequence_length: Annotated[Count, Field(gt=0)]
    tokens_per_step: Annotated[Count, Field(gt=0)]
    ramp: BatchRamp | None = Field(default=None, exclude_if=lambda ramp: ramp is None)
    lr: LearningRate
    from_: str | None = Field(default=None, alias="from", exclude_if=lambda origin: origin is None)
    loss: LossConfig | None = Field(default=None, exclude_if=lambda loss: loss is None)

    @property
    def origin(self) -> Origin | None:
        """What `from` says."""
        match = _ORIGIN_PATTERN.fullmatch(self.from_ or "")
        if match is None:
            return None
        return Origin(match["phase"], None if match["tokens"] is None else parse_count(match["tokens"]))

    @property
    def step_sizes(self) -> StepSizes:
        """What each of its steps takes."""
        to = self.tokens_per_step
        if self.ramp is None:
            return step_sizes(to, to, 1, 1)
        return step_sizes(to, self.ramp.start, self.ramp.over, self.ramp.increment(to))

    @property
    def steps(self) -> int:
        """Optimizer steps: the whole number that comes nearest to its tokens, at least 1."""
        return self.step_sizes.steps(self.tokens)

    @property
    def step_tokens(self) -> int:
        """Tokens of all its steps."""
        return self.step_sizes.tokens(self.steps)

    @property
    def sequences_per_step(self) -> int:
        """Of its largest steps."""
        return self.tokens_per_step // self.sequence_length

    @property
    def sequences_together(self) -> int:
        """The number of sequences of which every step has a multiple."""
        ramp, to = self.ramp, self.tokens_per_step
        tokens = to if ramp is None else math.gcd(ramp.start, ramp.increment(to))
        return tokens // self.sequence_length

    @property
    def warmup_tokens(self) -> int:
        """The warm-up of its learning rate in tokens."""
        warmup = self.lr.warmup
        return self.step_sizes.tokens(int(warmup.split()[0])) if isinstance(warmup, str) else warmup

    @model_validator(mode="before")
    @classmethod
    def _take_apart(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        if "ramp" in data:
            raise ValueError("ramp is written `tokens_per_step: {from: 256K, to: 4M, over: 10B}`")
        if "rest" in data:
            raise ValueError("rest is written `mixture: {temperature: 3.3, domains: [fi, hi], shares: {en: 10%}}`")
        mixture = data.get("mixture")
        if isinstance(mixture, dict) and any(isinstance(value, list | dict) for value in mixture.values()):
            if unknown := sorted(set(map(str, mixture)) - {"temperature", "unimax", "domains", "shares"}):
                raise ValueError(
                    f"mixture has {unknown[0]!r} beside domains or shares; expected temperature or unimax, domains and "
                    "shares; or each domain with its share"
                )
            rule = {key: value for key, value in mixture.items() if key != "shares"}
            data = {**data, "mixture": mixture.get("shares", {}), "rest": rule}
        size = data.get("tokens_per_step")
        if not isinstance(size, dict):
            return data
        if not {"from", "to", "over"} <= set(size) <= {"from", "to", "over", "by"}:
            given = ", ".join(map(str, size))
            raise ValueError(f"tokens_per_step has {given}; expected a number, or from, to, over (and by)")
        return {**data, "tokens_per_step": size["to"], "ramp": {key: size[key] for key in size if key != "to"}}

    @model_serializer(mode="wrap")
    def _put_together(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written = handler(self)
        if ramp := written.pop("ramp", None):
            others = {key: value for key, value in ramp.items() if key != "start" and value is not None}
            written["tokens_per_step"] = {"from": ramp["start"], "to": written["tokens_per_step"], **others}
        if rest := written.pop("rest", None):
            rule = {key: value for key, value in rest.items() if value is not None}
            written["mixture"] = {**rule, "shares": written["mixture"]}
        return written

    @model_validator(mode="after")
    def _rest_remains(self) -> "PhaseConfig":
        if self.rest is None:
            return self
        if both := sorted(set(self.mixture) & set(self.rest.domains)):
            raise ValueError(
                f"phase {self.name}: {both[0]} has a share in the mixture and is among its domains; keep one"
            )
        fixed = math.fsum(self.mixture.values())
        if not 0 <= fixed < 1:
            raise ValueError(
                f"phase {self.name}: fixed shares sum to {fixed:.6g} and leave {', '.join(self.rest.domains)} none"
            )
        return self

    @model_validator(mode="after")
    def _whole_sequences_and_steps(self) -> "PhaseConfig":
        ramp, to = self.ramp, self.tokens_per_step
        sizes = {"": to} if ramp is None else {"to ": to, "from ": ramp.start, "by ": ramp.increment(to)}
        for name, size in sizes.items():
            if size % self.sequence_length:
                nearest = max(1, round(size / self.sequence_length)) * self.sequence_length
                raise ValueError(
                    f"phase {self.name}: tokens_per_step {name}{size} is not a multiple of sequence_length "
                    f"{self.sequence_length}; the nearest is {nearest}"
                )
        if ramp and (ramp.start >= to or (to - ramp.start) % ramp.increment(to)):
            raise ValueError(
                f"phase {self.name}: tokens_per_step does not get from {ramp.start} to {to} by {ramp.increment(to)}; "
                "a batch grows, by the same number each time"
            )
        smallest = self.step_sizes.size(0)
        if self.tokens < smallest:
            raise ValueError(
                f"phase {self.name}: {self.tokens} tokens are less than one step of {smallest}; "
                "give the phase more tokens or lower tokens_per_step"
            )
        if self.from_ is not None and self.origin is None:
            raise ValueError(f"phase {self.name}: from {self.from_!r} names no phase; write CAP, or CAP@200B")
        warmup, span = self.warmup_tokens, self.lr.over or self.tokens
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
