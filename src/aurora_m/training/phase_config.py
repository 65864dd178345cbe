"""What the recipe says about a phase: its tokens, mixture, batch, loss, and its learning-rate segment."""

import math
import re
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from aurora_m.tokens import MixtureRule
from aurora_m.workspace import Count, Section, Share, parse_count

from .batch_ramp import BatchRamp, StepSizes, step_sizes

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
