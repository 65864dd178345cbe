"""Which of several models between base and final to keep: the one that learned most of those inside the budget.

Everything is decided on the bits of each held-out document, each model against the others on the same documents, so
that a difference is told from the chance of which documents were held out.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .ledger import HeldoutScore, change_against

Scores = dict[str, HeldoutScore]  # by domain

_FINEST = 0.01  # shares closer than this are the same model for all that can be measured
_SURE = 2.0  # standard errors: a difference below it is no reason to change the weights


@dataclass(frozen=True)
class Aim:
    """What is asked of a model: `base`'s scores, how much worse guarded domains may get, which domains it learned."""

    base: Scores
    budget: dict[str, float]
    learned: list[str]


@dataclass(frozen=True)
class Point:
    """A candidate, the mean of the last `average_last` checkpoints with `base_share` of the base, and what it scored.

    `changes`: relative change of bits per byte against the base, and its standard error, by domain. `learning`: mean
    change over the learned domains. `excess`: by how much the worst guarded domain, one standard error added, is over
    its budget; at most 0 is inside.
    """

    average_last: int
    base_share: float
    scores: Scores
    changes: dict[str, tuple[float, float]]
    learning: float
    learning_stderr: float
    excess: float
    worst: str

    @property
    def name(self) -> str:
        trunk = f"mean of the last {self.average_last} checkpoints" if self.average_last > 1 else ""
        share = f"base share {self.base_share:g}" if self.base_share else ""
        return ", ".join(filter(None, [trunk, share])) or "unmerged"

    @property
    def is_unmerged(self) -> bool:
        return self.average_last == 1 and self.base_share == 0

    @property
    def inside(self) -> bool:
        return self.excess <= 0

    def row(self) -> dict[str, Any]:
        """The candidate's entry in `merge.json`."""
        return {
            "name": self.name,
            "average_last": self.average_last,
            "base_share": self.base_share,
            "inside": self.inside,
            "excess": self.excess,
            "worst": self.worst,
            "learning": self.learning,
            "learning_stderr": self.learning_stderr,
            "domains": {
                domain: {"bpb": score.bpb, "change": self.changes[domain][0], "stderr": self.changes[domain][1]}
                for domain, score in self.scores.items()
            },
        }


def judge(average_last: int, base_share: float, scores: Scores, aim: Aim) -> Point:
    """Sets a candidate's scores against the base and the budget."""
    changes = {domain: _change(scores[domain], base) for domain, base in aim.base.items()}
    over = {domain: sum(changes[domain]) - allowed for domain, allowed in aim.budget.items()}
    worst = max(over, key=lambda domain: over[domain])
    learning, stderr = _mean([changes[domain] for domain in aim.learned])
    return Point(average_last, base_share, scores, changes, learning, stderr, over[worst], worst)


def choose(points: list[Point], aim: Aim) -> tuple[Point, str]:
    """The point to keep, one of them the unmerged model, and why.

    Inside the budget the lowest mean bpb of the learned domains wins, unless the unmerged model is inside too and not
    measurably worse. Where none is inside the unmerged model stays.
    """
    unmerged = next(point for point in points if point.is_unmerged)
    inside = [point for point in points if point.inside]
    if not inside:
        nearest = min(points, key=lambda point: point.excess)
        return unmerged, f"no candidate is inside the budget; nearest is {nearest.name}, with {_held(nearest, aim)}"
    best = min(inside, key=lambda point: point.learning)
    learned = ", ".join(aim.learned)
    if unmerged.inside:
        gain, stderr = learned_more(best, unmerged, aim)
        if best is unmerged or gain <= _SURE * stderr:
            return unmerged, (
                f"it is inside the budget ({_held(unmerged, aim)}), and no candidate inside has a measurably lower "
                f"mean bpb of {learned}"
            )
        return best, (
            f"of {len(inside)} candidates inside the budget it has the lowest mean bpb of {learned}, measurably lower "
            f"than unmerged by {gain:.2%} ± {stderr:.2%} of the base's"
        )
    return best, (
        f"of {len(inside)} candidates inside the budget it has the lowest mean bpb of {learned} "
        f"({best.learning:+.2%} against the base); unmerged ({unmerged.learning:+.2%}) is outside, with "
        f"{_held(unmerged, aim)}"
    )


def nearest_to_budget(points: list[Point]) -> Point:
    """The best point inside the budget, or, where there is none, the one least outside: where to look closer."""
    inside = [point for point in points if point.inside]
    return min(inside, key=lambda point: point.learning) if inside else min(points, key=lambda point: point.excess)


def next_shares(points: list[Point]) -> list[float]:
    """Base shares halfway between the best of these points and its neighbours; none where they are close already."""
    shares = sorted(point.base_share for point in points)
    place = shares.index(nearest_to_budget(points).base_share)
    pairs = [shares[at : at + 2] for at in (place - 1, place) if at >= 0]
    return [round(sum(pair) / 2, 6) for pair in pairs if len(pair) == 2 and pair[1] - pair[0] > _FINEST]


def learned_more(point: Point, other: Point, aim: Aim) -> tuple[float, float]:
    """By how much of the base's bpb one learned more than the other, in the mean, and the standard error of that."""
    return _mean([_gain(point.scores[domain], other.scores[domain], aim.base[domain]) for domain in aim.learned])


def _gain(score: HeldoutScore, other: HeldoutScore, base: HeldoutScore) -> tuple[float, float]:
    bits, others, base_bits = _bits(score), _bits(other), _bits(base)
    change, stderr = change_against(others - bits + base_bits, base_bits)
    return change, stderr or 0.0


def _change(score: HeldoutScore, base: HeldoutScore) -> tuple[float, float]:
    change, stderr = change_against(_bits(score), _bits(base))
    return change, stderr or 0.0  # of a single document nobody knows the error


def _bits(score: HeldoutScore) -> np.ndarray:
    assert score.bits is not None
    return score.bits


def _mean(changes: list[tuple[float, float]]) -> tuple[float, float]:
    """Mean of independent changes, and its standard error."""
    count = len(changes)
    return sum(change for change, _ in changes) / count, math.sqrt(sum(error**2 for _, error in changes)) / count


def _held(point: Point, aim: Aim) -> str:
    """The guarded domains as they are held, or not."""
    return ", ".join(
        f"{domain} {point.changes[domain][0]:+.2%} ± {point.changes[domain][1]:.2%} of {allowed:.2%}"
        for domain, allowed in aim.budget.items()
    )
