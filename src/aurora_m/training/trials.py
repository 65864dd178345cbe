"""Short trials before the money is spent: which replay and which rate a forgetting budget will take.

Each trial trains the first guarded phase for a small part of its tokens, with its own share of replay and its own peak
rate, down to the end of its own short schedule. The trials' ledgers together tell the constants of the equation of
forgetting (`forgetting_model`), in terms of the whole phase, and the curve of learning, both with an interval. What
follows for the whole phase is an extrapolation, ten- or twentyfold, and its interval says so.
"""

import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from aurora_m.model import BaseConfig
from aurora_m.workspace import Progress, RecipeError, fingerprint, read_json, write_json

from .config import CheckpointConfig, PhaseConfig, TelemetryConfig, TrainConfig
from .forgetting_model import Course, History, Standing, believe, measurements_of
from .guardrails_config import GuardrailsConfig
from .mixtures import epoch_tokens
from .rate_course import RateCourse
from .schedule import Segment, build_segments, segment_of
from .stage import resolve_mixtures, train

_MEASUREMENTS = 5  # of each trial
_LEAST_STEPS = 20
_OFFSETS = np.geomspace(1e-3, 1.0, 25)  # of the learning curve, in progress
_RESAMPLES = 200


@dataclass(frozen=True)
class Trials:
    """What is tried: `part` of the phase's tokens, each of the replay shares with each factor of the planned rate."""

    part: float = 0.05
    shares: tuple[float, ...] = (0.0, 0.15, 0.4)
    rate_factors: tuple[float, ...] = (1.0, 0.4)


@dataclass(frozen=True)
class Choice:
    """One factor of the planned peak rate, with the least replay that holds the budgets, and what comes of it.

    `shares` is None for a domain that no replay holds. `forecast` is the change against the base at the phase's end,
    `learned` the bits per byte of the other domains, relative to the planned rate without replay (above 0 is less
    learned): middle, low and high of an 80 % interval.
    """

    rate_factor: float
    peak: float
    shares: dict[str, float | None]
    forecast: dict[str, tuple[float, float, float]]
    learned: tuple[float, float, float]
    feasible: bool


def probe(
    config: TrainConfig,
    base: BaseConfig,
    tokens: Path,
    out: Path,
    *,
    seed: int,
    base_folder: Path,
    trials: Trials,
    progress: Progress,
) -> dict[str, Any]:
    """Runs the trials that are not done, and returns what they say, which is written to `out/probe.json`.

    Raises:
        RecipeError: nothing is guarded, no phase trains anything but guarded domains, or a trial has too few steps.
        AuroraError: as `train`.
    """
    if config.guardrails is None:
        raise RecipeError("probe needs a budget: add train.guardrails, such as {en: 1%, code: 1%}")
    config = resolve_mixtures(config, epoch_tokens(read_json(tokens / "tokens.json")), progress)
    assert config.guardrails is not None
    phase, segment, start = guarded_phase(config)
    plan = [(share, factor) for factor in trials.rate_factors for share in trials.shares]
    results = []
    for number, (share, factor) in enumerate(plan, 1):
        progress.say(f"trial {number} of {len(plan)}: {share:.0%} replay, rate times {factor:g}")
        trial = trial_phase(config.guardrails, phase, trials.part, share, factor)
        results.append(_run(config, trial, base, tokens, out, seed, base_folder, progress))
    choices = choose(config.guardrails, phase, segment, start, results, trials.rate_factors)
    result = {
        "phase": phase.name,
        "part": trials.part,
        "budget": config.guardrails.budget,
        "trials": results,
        "choices": [asdict(choice) for choice in choices],
        "recommended": next((asdict(choice) for choice in choices if choice.feasible), None),
    }
    write_json(out / "probe.json", result)
    return result


def guarded_phase(config: TrainConfig) -> tuple[PhaseConfig, Segment, int]:
    """The first phase after the base's own with both guarded and other domains, its segment, and the tokens before it.

    Raises:
        RecipeError: there is none.
    """
    assert config.guardrails is not None
    start = 0
    for phase, segment in zip(config.phases, build_segments(config.phases), strict=True):
        if phase.name != "base" and not set(phase.mixture) <= set(config.guardrails.budget):
            return phase, segment, start
        start += phase.step_tokens
    raise RecipeError("probe finds no phase that trains anything but guarded domains; there is nothing to forget for")


def trial_phase(
    guardrails: GuardrailsConfig, phase: PhaseConfig, part: float, share: float, factor: float
) -> PhaseConfig:
    """`part` of a phase with so much replay, dealt as the phase deals it, and its peak rate times `factor`.

    Raises:
        RecipeError: it would have too few steps to tell anything.
    """
    steps = round(part * phase.steps)
    if steps < _LEAST_STEPS:
        raise RecipeError(
            f"{part:.0%} of phase {phase.name} are {steps} steps, too few to learn from; "
            f"give --part {math.ceil(100 * _LEAST_STEPS / phase.steps)}% or more"
        )
    own = {name: phase.mixture.get(name, 0.0) for name in guardrails.budget}
    own = own if sum(own.values()) else dict.fromkeys(own, 1.0)
    others = {name: one for name, one in phase.mixture.items() if name not in own and one > 0}
    mixture = {name: share * one / sum(own.values()) for name, one in own.items()}
    mixture |= {name: (1 - share) * one / sum(others.values()) for name, one in others.items()}
    rates = segment_rates(phase)
    count = steps * phase.tokens_per_step
    return PhaseConfig.model_validate(
        {
            "name": f"replay-{share:.3f}-rate-{factor:.3f}",
            "tokens": count,
            "mixture": {name: one for name, one in mixture.items() if one > 0},
            "sequence_length": phase.sequence_length,
            "tokens_per_step": phase.tokens_per_step,
            "lr": {
                "peak": factor * rates[0],
                "warmup": min(phase.lr.warmup_tokens(phase.tokens_per_step), count // 5),
                "decay": "cosine",
                "to": factor * rates[1],
            },
        }
    )


def segment_rates(phase: PhaseConfig) -> tuple[float, float]:
    """A phase's highest and last rate."""
    segment = segment_of(phase)
    return segment.peak, segment.rate(phase.step_tokens)


def _run(
    config: TrainConfig,
    trial: PhaseConfig,
    base: BaseConfig,
    tokens: Path,
    out: Path,
    seed: int,
    base_folder: Path,
    progress: Progress,
) -> dict[str, Any]:
    """A trial's ledger, from its file where it was run before. Weights and checkpoints are not kept."""
    count = trial.step_tokens
    tried = config.model_copy(
        update={
            "phases": [trial],
            "guardrails": None,
            "ledger": config.ledger.model_copy(update={"every": max(1, count // _MEASUREMENTS)}),
            "checkpoint": CheckpointConfig(every=max(1, count // 2), keep=1),
            "telemetry": TelemetryConfig(energy=False),
        }
    )
    mark = fingerprint([tried.model_dump(mode="json"), base.model_dump(mode="json"), seed])
    path, folder = out / f"{trial.name}.json", out / trial.name
    if path.exists() and (found := read_json(path))["fingerprint"] == mark:
        return found
    result = train(
        tried, BaseConfig(path=str(base_folder)), tokens, folder, seed=seed, base_folder=base_folder, progress=progress
    )
    rows = pq.read_table(folder / "ledger.parquet").to_pylist()
    kept = ("tokens", "domain", "bpb", "change", "change_stderr")
    row = {
        "fingerprint": mark,
        "phase": trial.model_dump(mode="json"),
        "seconds": result["seconds"],
        "ledger": [{name: one[name] for name in kept} for one in rows],
    }
    write_json(path, row)
    shutil.rmtree(folder)
    return row


# ----------------------------------------------------------------------------------------------- what follows
def choose(
    guardrails: GuardrailsConfig,
    phase: PhaseConfig,
    segment: Segment,
    start: int,
    results: list[dict[str, Any]],
    factors: Sequence[float],
) -> list[Choice]:
    """A choice for each factor of the rate, those that hold all budgets first, of these the one that learns most."""
    whole = RateCourse(segment, start, start + phase.step_tokens)
    guarded = list(guardrails.budget)
    standings = {domain: _stand(domain, guarded, results, whole) for domain in guarded}
    learning = LearningCurve.fit(results, guarded, whole)
    points = whole.points(start, start + phase.step_tokens, [])
    choices = []
    for factor in factors:
        shares = _least_shares(guardrails, standings, whole, points, factor)
        dealt = {domain: guardrails.ceiling if share is None else share for domain, share in shares.items()}
        total = min(guardrails.ceiling, sum(dealt.values()))
        forecast = {}
        for domain, standing in standings.items():
            end, _ = standing.forecast(whole.course(points, min(dealt[domain], total), total, factor))
            middle, low, high = (float(np.expm1(standing.quantile(end, q))) for q in (0.5, 0.1, 0.9))
            forecast[domain] = (middle, low, high)
        feasible = all(share is not None for share in shares.values()) and sum(dealt.values()) <= guardrails.ceiling
        learned = learning.against_no_replay(whole.between(points), factor, total)
        choices.append(Choice(factor, factor * segment.peak, shares, forecast, learned, feasible))
    return sorted(choices, key=lambda choice: (not choice.feasible, choice.learned[0]))


def _stand(domain: str, guarded: list[str], results: list[dict[str, Any]], whole: RateCourse) -> Standing:
    """Where the domain stands before the phase, with all that the trials taught of it."""
    histories = []
    for result in results:
        trial = PhaseConfig.model_validate(result["phase"])
        rows = [row for row in result["ledger"] if row["domain"] == domain and row["tokens"] > 0]
        course, points = _trial_course(trial, whole, [row["tokens"] for row in rows], guarded, domain)
        histories.append(History(0.0, 0.0, course, measurements_of(rows, points)))
    nothing = Course(*(np.empty(0) for _ in range(4)))
    return believe(histories).after(History(0.0, 0.0, nothing, []))


def _trial_course(
    trial: PhaseConfig, whole: RateCourse, places: list[int], guarded: list[str], domain: str | None
) -> tuple[Course, np.ndarray]:
    count = trial.step_tokens
    rates = RateCourse(segment_of(trial), 0, count, unit=whole)
    points = rates.points(0, count, places)
    total = sum(trial.mixture.get(name, 0.0) for name in guarded)
    own = trial.mixture.get(domain, 0.0) if domain else 0.0
    return rates.course(points, own, total), points


def _least_shares(
    guardrails: GuardrailsConfig, standings: dict[str, Standing], whole: RateCourse, points: np.ndarray, factor: float
) -> dict[str, float | None]:
    """The least share of each domain that holds its budget, the others' being what they need."""
    shares: dict[str, float | None] = dict.fromkeys(standings, guardrails.floor)
    grid = np.linspace(guardrails.floor, guardrails.ceiling, 60)
    for _ in range(3):
        for domain, standing in standings.items():
            others = sum(share or 0.0 for name, share in shares.items() if name != domain)
            limit = math.log1p(guardrails.budget[domain])
            shares[domain] = None
            for share in grid.tolist():
                end, _ = standing.forecast(whole.course(points, share, min(1.0, share + others), factor))
                if standing.probability(end, limit) >= guardrails.confidence:
                    shares[domain] = share
                    break
    return shares


@dataclass(frozen=True)
class LearningCurve:
    """log bpb of what is learned, a mean over its domains: a - b log(x + x0) + k r, with x the progress on it so far.

    `coefficients` float64[resamples, 4] (a, b, k, x0), the first from all trials, the others from resampled ones.
    """

    coefficients: np.ndarray

    @classmethod
    def fit(cls, results: list[dict[str, Any]], guarded: list[str], whole: RateCourse) -> "LearningCurve":
        """By least squares; x0 is the one of a few that fits best."""
        groups = [_learning_points(result, guarded, whole) for result in results]
        random = np.random.default_rng(7)
        draws = [range(len(groups)), *(random.integers(len(groups), size=len(groups)) for _ in range(_RESAMPLES))]
        return cls(np.array([_fit_curve(np.concatenate([groups[n] for n in draw])) for draw in draws]))

    def log_bpb(self, progress: float, rate: float) -> np.ndarray:
        """float64[resamples]."""
        a, b, k, x0 = self.coefficients.T
        return a - b * np.log(progress + x0) + k * rate

    def against_no_replay(
        self, rest: tuple[np.ndarray, np.ndarray], factor: float, replay: float
    ) -> tuple[float, float, float]:
        """Bits per byte at the end relative to the planned rate without replay: best guess, low, high (80 %)."""
        progress, rate = float(rest[0].sum()), float(rest[1][-1])
        ratio = np.expm1(self.log_bpb(progress * factor * (1 - replay), rate * factor) - self.log_bpb(progress, rate))
        low, high = np.quantile(ratio[1:], (0.1, 0.9))
        return float(ratio[0]), float(low), float(high)


def _learning_points(result: dict[str, Any], guarded: list[str], whole: RateCourse) -> np.ndarray:
    """Rows (progress on what is new, rate, log bpb) of a trial's measurements after its start: float64[n, 3]."""
    trial = PhaseConfig.model_validate(result["phase"])
    rows = [row for row in result["ledger"] if row["domain"] in trial.mixture and row["domain"] not in guarded]
    places = sorted({row["tokens"] for row in rows} - {0})
    course, points = _trial_course(trial, whole, places, guarded, None)
    done = np.cumsum(course.progress * (1 - course.all_replay))
    found = []
    for place in places:
        piece = int(np.searchsorted(points, place)) - 1
        logs = [math.log(row["bpb"]) for row in rows if row["tokens"] == place]
        found.append((done[piece], course.rate[piece], sum(logs) / len(logs)))
    return np.array(found)


def _fit_curve(points: np.ndarray) -> tuple[float, float, float, float]:
    best = (math.inf, (0.0, 0.0, 0.0, 1.0))
    for x0 in _OFFSETS:
        design = np.stack([np.ones(len(points)), -np.log(points[:, 0] + x0), points[:, 1]], axis=1)
        solved, *_ = np.linalg.lstsq(design, points[:, 2], rcond=None)
        missed = float(((design @ solved - points[:, 2]) ** 2).sum())
        if missed < best[0] and solved[1] >= 0:
            best = (missed, (float(solved[0]), float(solved[1]), float(solved[2]), float(x0)))
    return best[1]
