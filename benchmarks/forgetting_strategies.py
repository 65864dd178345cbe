"""The strategies that benchmarks/forgetting.py compares: what each writes into the `train` section of a recipe."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

OLD, NEW = ("en", "code"), ("fi", "hi", "ja", "vi")


@dataclass(frozen=True)
class Scale:
    """Sizes of one series of experiments; `tokens` is what every strategy may spend after the base."""

    architecture: dict[str, Any]
    base_tokens: int
    tokens: int
    base_peak: float
    base_tokens_per_step: int = 2048
    tokens_per_step: int = 8192
    sequence_length: int = 512


SCALES = {
    "3M": Scale(
        {"family": "gpt_bigcode", "layers": 4, "hidden_size": 192, "heads": 4, "max_positions": 512},
        base_tokens=5_000_000,
        tokens=1_000_000,
        base_peak=2e-3,
    ),
    "10M": Scale(
        {"family": "gpt_bigcode", "layers": 6, "hidden_size": 352, "heads": 8, "max_positions": 512},
        base_tokens=10_000_000,
        tokens=2_000_000,
        base_peak=2e-3,
    ),
}


def scale_of(name: str) -> Scale:
    if name not in SCALES:
        raise SystemExit(f"unknown scale {name!r}; expected one of {', '.join(SCALES)}")
    return SCALES[name]


def base_phase(scale: Scale) -> dict[str, Any]:
    """English and code, down to a rate where the base is nearly flat: one that still improves hides forgetting."""
    return {
        "name": "base",
        "tokens": scale.base_tokens,
        "mixture": {"en": 0.5, "code": 0.5},
        "sequence_length": scale.sequence_length,
        "tokens_per_step": scale.base_tokens_per_step,
        "lr": {"warmup": "50 steps", "peak": scale.base_peak, "decay": "cosine", "to": scale.base_peak / 100},
    }


def shares(en: float, code: float) -> dict[str, float]:
    """A mixture of so much of either, the rest in even parts."""
    new = (1 - en - code) / len(NEW)
    return {domain: share for domain, share in {"en": en, "code": code, **dict.fromkeys(NEW, new)}.items() if share}


def phase(
    scale: Scale, mixture: dict[str, float], peak: float, *, name: str = "CAP", part: float = 1.0, **rate: Any
) -> dict[str, Any]:
    """`part` of the tokens; cosine to a tenth of the peak unless `rate` says otherwise."""
    return {
        "name": name,
        "tokens": round(scale.tokens * part),
        "mixture": mixture,
        "sequence_length": scale.sequence_length,
        "tokens_per_step": scale.tokens_per_step,
        "lr": {"warmup": "6 steps", "peak": peak, "decay": "cosine", "to": peak / 10} | rate,
    }


@dataclass(frozen=True)
class Strategy:
    about: str
    settings: Callable[[Scale], dict[str, Any]]
    scratch: bool = False
    extended: bool = False
    """With 1,000 tokens for the new languages on top of the base's vocabulary."""


def fixed(en: float, code: float, peak: float = 1e-3, **rate: Any) -> Callable[[Scale], dict[str, Any]]:
    return lambda scale: {"phases": [phase(scale, shares(en, code), peak, **rate)]}


def two_phases(scale: Scale) -> dict[str, Any]:
    """The paper's proportions: 377B of 435B tokens in CAP; 25 % replay in CAP, more of it and a low rate in CAT."""
    cap = scale.tokens * 377 // 435 // scale.tokens_per_step * scale.tokens_per_step
    return {
        "phases": [
            phase(scale, shares(0.125, 0.125), 1e-3, part=cap / scale.tokens, to=2.4e-4),
            phase(
                scale,
                shares(0.2, 0.2),
                2.4e-4,
                name="CAT",
                part=1 - cap / scale.tokens,
                to=1e-4,
                decay="linear",
                warmup=0,
            ),
        ]
    }


def from_scratch(scale: Scale) -> dict[str, Any]:
    """The base's tokens and the new ones in one phase, of each domain as many as no replay gives it."""
    total = scale.base_tokens + scale.tokens
    old = scale.base_tokens / total / 2
    peak = scale.base_peak
    rates = {"warmup": "50 steps", "to": peak / 100}
    whole = phase(scale, shares(old, old), peak, part=total / scale.tokens, **rates)
    return {"phases": [whole | {"tokens_per_step": scale.base_tokens_per_step}]}


def guarded(budget: float, **guardrails: Any) -> Callable[[Scale], dict[str, Any]]:
    """From 25 % replay, dealt evenly, on: what the controller makes of it."""
    return lambda scale: {
        "phases": [phase(scale, shares(0.125, 0.125), 1e-3)],
        "guardrails": {"budget": dict.fromkeys(OLD, budget), "infeasible": "continue", **guardrails},
    }


def in_halves(first: tuple[float, float], second: tuple[float, float]) -> Callable[[Scale], dict[str, Any]]:
    """Other shares in the second half, on one rate segment."""

    def settings(scale: Scale) -> dict[str, Any]:
        half = phase(scale, shares(*first), 1e-3, part=0.5, over=scale.tokens)
        return {
            "phases": [half, phase(scale, shares(*second), 1e-3, name="late", part=0.5) | {"lr": {"continues": True}}]
        }

    return settings


# How many times fewer tokens the same text has in the extended vocabulary (`aurora-m fertility`).
TIMES_FEWER = {"fi": 1.30, "hi": 3.02, "ja": 2.38, "vi": 1.30}


def same_bytes(scale: Scale) -> dict[str, Any]:
    """As even-25, of every language as much text as there, and so fewer tokens in all."""
    parts = {domain: share / TIMES_FEWER.get(domain, 1.0) for domain, share in shares(0.125, 0.125).items()}
    part = sum(parts.values())
    return {"phases": [phase(scale, {domain: one / part for domain, one in parts.items()}, 1e-3, part=part)]}


STRATEGIES: dict[str, Strategy] = {
    "none": Strategy("no replay", fixed(0, 0)),
    "even-25": Strategy("25% replay, half English, half code", fixed(0.125, 0.125)),
    "even-05": Strategy("5% replay", fixed(0.025, 0.025)),
    "code-25": Strategy("25% replay, two thirds and more code", fixed(0.07, 0.18)),
    "even-40": Strategy("40% replay", fixed(0.2, 0.2)),
    "code-40": Strategy("40% replay, 12 to 28", fixed(0.12, 0.28)),
    "even-60": Strategy("60% replay", fixed(0.3, 0.3)),
    "code-10": Strategy("10% replay, 3 to 7", fixed(0.03, 0.07)),
    "even-10": Strategy("10% replay", fixed(0.05, 0.05)),
    "code-60": Strategy("60% replay, 18 to 42", fixed(0.18, 0.42)),
    "low-none": Strategy("no replay, rate 3e-4", fixed(0, 0, 3e-4)),
    "low-even-25": Strategy("25% replay, rate 3e-4", fixed(0.125, 0.125, 3e-4)),
    "low-code-25": Strategy("25% replay, 7 to 18, rate 3e-4", fixed(0.07, 0.18, 3e-4)),
    "low-code-60": Strategy("60% replay, 18 to 42, rate 3e-4", fixed(0.18, 0.42, 3e-4)),
    "two-phases": Strategy("the paper's CAP and CAT, fixed shares", two_phases),
    "no-rewarm": Strategy(
        "25% replay, the rate goes on where the base's ended",
        fixed(0.125, 0.125, 2e-5, warmup=0, decay="constant", to=0.0),
    ),
    "late-25": Strategy(
        "25% replay, 7 to 18, all but a fifth of it in the second half", in_halves((0.03, 0.07), (0.11, 0.29))
    ),
    "early-25": Strategy(
        "25% replay, 7 to 18, all but a fifth of it in the first half", in_halves((0.11, 0.29), (0.03, 0.07))
    ),
    "extended-25": Strategy("25% replay, 1,000 new tokens, as many tokens", fixed(0.125, 0.125), extended=True),
    "extended-25-bytes": Strategy("25% replay, 1,000 new tokens, as many bytes", same_bytes, extended=True),
    "guard-1": Strategy("guardrails of 1% on English and code", guarded(0.01)),
    "guard-2": Strategy("guardrails of 2%", guarded(0.02)),
    "guard-3": Strategy("guardrails of 3%", guarded(0.03)),
    "guard-5": Strategy("guardrails of 5%", guarded(0.05)),
    "scratch": Strategy("everything from scratch with all the tokens", from_scratch, scratch=True),
}
