"""How far a domain will be from the base at a phase's end: an equation of forgetting and replay, learned on the way.

A domain's excess is y = log(bpb / base bpb). Over a phase, with progress s from 0 to 1 in learning rate times tokens,
rate r(s) as a share of its peak, the domain's own replay share u and the share U of all replay:

    y(s) = F(s) + K r(s)                        what the raised rate itself costs, and gives back as it falls
    dF/ds = A (1 - U) sqrt(r) - B F - C u (F + G)

A is drift by new text, B what the model regains by itself, C what replay repairs, and G how far below the base replay
can lead, where the base was not trained to its end. The root is what the experiments of docs/method.md say: as the rate
falls, less is forgotten for the same progress.

The five constants differ by model, domain and rate, and nobody knows them before. So some thousand guesses are drawn
from a wide prior, each is run through what happened (shares, rates), and each weighs as much as it explains what was
measured. Forecasts are those of the weighted guesses: wide while little is known, and with no state of their own that
could wind up, since all of it is worked out anew from the measurements.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

_GUESSES = 2000
_ROUNDS = 4  # of drawing nearer to what explains the measurements
_FLOOR_ERROR, _RELATIVE_ERROR = 0.003, 0.12  # by how much the equation itself is wrong: at least, and of the excess
_INFORMATION = 20  # measurements of one phase count as at most so many: the equation's errors are not independent


@dataclass(frozen=True)
class Prior:
    """What is believed of log(A, B, C, K, G) before anything was measured: float64[5] and float64[5, 5]."""

    mean: np.ndarray
    covariance: np.ndarray


# Its means are of a few runs of 3M parameters (docs/method.md); its spread is several times theirs.
DEFAULT_PRIOR = Prior(np.log([0.29, 1.65, 20.0, 0.017, 0.002]), np.diag([0.7, 0.6, 0.7, 0.8, 1.3]) ** 2)


@dataclass(frozen=True)
class Course:
    """A stretch of a phase in pieces: progress made in each, the rate's share of its peak after it, and the shares.

    float64[n] all; the progress of a whole phase whose rate is as planned sums to 1.
    """

    progress: np.ndarray
    rate: np.ndarray
    own: np.ndarray
    all_replay: np.ndarray


@dataclass(frozen=True)
class Measurement:
    """An excess after the first `pieces` pieces of a course, and its standard error."""

    pieces: int
    excess: float
    error: float


def measurements_of(rows: list[dict[str, Any]], points: np.ndarray) -> list[Measurement]:
    """Rows of the ledger, of one domain, whose tokens are among the places between which the pieces lie."""
    return [
        Measurement(int(np.searchsorted(points, row["tokens"])), math.log1p(row["change"]), row["change_stderr"] or 0.0)
        for row in rows
    ]


@dataclass(frozen=True)
class History:
    """A stretch that was lived through: the excess and the rate it began with, its course, and what was measured."""

    start: float
    start_rate: float
    course: Course
    measurements: list[Measurement]


@dataclass(frozen=True)
class Belief:
    """Guesses of (A, B, C, K, G), float64[guesses, 5], and their weights, which sum to 1."""

    guesses: np.ndarray
    weights: np.ndarray

    def after(self, history: History, error: float = 0.0) -> "Standing":
        """Where a domain stands that lived through `history`, and by what its held-out documents may mislead."""
        return Standing(self, _live(self.guesses, history)[1], error)


@dataclass(frozen=True)
class Standing:
    """A belief, and F by each of its guesses at one moment: float64[guesses].

    `error`: the standard error of the domain's excess, which its held-out documents carry from now to the end.
    """

    belief: Belief
    forgotten: np.ndarray
    error: float = 0.0

    def forecast(self, rest: Course) -> tuple[np.ndarray, np.ndarray]:
        """The excess at the end of `rest`, and the highest on the way: float64[guesses] both."""
        path, _ = _solve(self.belief.guesses, self.forgotten, rest)
        return path[-1], path.max(axis=0)

    def probability(self, values: np.ndarray, limit: float, error: float = 0.0) -> float:
        """That a value, one of each guess, is at most `limit` when it is off by a normal `error`."""
        if error <= 0:
            return float(self.belief.weights[values <= limit].sum())
        below = torch.special.ndtr(torch.from_numpy((limit - values) / error)).numpy()
        return float(self.belief.weights @ below)

    def quantile(self, values: np.ndarray, q: float) -> float:
        order = np.argsort(values)
        return float(np.interp(q, np.cumsum(self.belief.weights[order]), values[order]))


def believe(histories: list[History], prior: Prior = DEFAULT_PRIOR) -> Belief:
    """What the measurements of one domain say about its constants: of one phase so far, or of several trials.

    Importance sampling in a few rounds, each drawing from a normal about what the one before found likely (population
    Monte Carlo: Cappé et al. 2004). The same numbers always give the same belief.
    """
    random = np.random.default_rng(20_240_400)
    center, spread = prior.mean, prior.covariance
    rounds = _ROUNDS if any(history.measurements for history in histories) else 1
    for turn in range(rounds):
        logs = center + random.standard_normal((_GUESSES, len(center))) @ np.linalg.cholesky(spread).T
        guesses = np.exp(logs)
        log_weights = _log_normal(logs, prior.mean, prior.covariance) - _log_normal(logs, center, spread)
        for history in histories:
            path, _ = _live(guesses, history)
            log_weights += _log_likelihood(path, history)
        last = turn == rounds - 1
        if not last:  # flatter on the way, so that one lucky guess does not take all
            log_weights *= (turn + 1) / rounds
        weights = np.exp(log_weights - log_weights.max())
        weights /= weights.sum()
        if last:
            return Belief(guesses, weights)
        center = weights @ logs
        spread = (logs - center).T @ ((logs - center) * weights[:, None]) * 1.5 + np.eye(len(center)) * 1e-4
    raise AssertionError("no round was the last")


def _live(guesses: np.ndarray, history: History) -> tuple[np.ndarray, np.ndarray]:
    """y after every piece of a history, and F at its end."""
    return _solve(guesses, history.start - guesses[:, 3] * history.start_rate, history.course)


def _solve(guesses: np.ndarray, forgotten: np.ndarray, course: Course) -> tuple[np.ndarray, np.ndarray]:
    """y after every piece, float64[n, guesses], and F at the end; exact, as shares are constant within a piece."""
    a, b, c, k, g = guesses.T
    path = np.empty((len(course.progress), len(guesses)))
    for piece, (progress, rate, own, all_replay) in enumerate(
        zip(course.progress, course.rate, course.own, course.all_replay, strict=True)
    ):
        decay = b + c * own
        rest = (a * (1 - all_replay) * math.sqrt(rate) - c * own * g) / decay
        forgotten = rest + (forgotten - rest) * np.exp(-decay * progress)
        path[piece] = forgotten + k * rate
    return path, forgotten


def _log_likelihood(path: np.ndarray, history: History) -> np.ndarray:
    total, before = np.zeros(path.shape[1]), 0
    for one in history.measurements:
        deviation = np.sqrt(one.error**2 + _FLOOR_ERROR**2 + (_RELATIVE_ERROR * one.excess) ** 2)
        information = min(1.0, _INFORMATION * float(history.course.progress[before : one.pieces].sum()))
        total -= 0.5 * information * ((path[one.pieces - 1] - one.excess) / deviation) ** 2
        before = one.pieces
    return total


def _log_normal(values: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Up to a constant that differs by covariance only, and so by round."""
    away = values - mean
    return -0.5 * np.einsum("ni,ij,nj->n", away, np.linalg.inv(covariance), away)
