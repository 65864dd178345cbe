"""The learning rate over a phase as the equation of forgetting sees it: progress made, and shares of the peak."""

import numpy as np

from .forgetting_model import Course
from .schedule import Segment

_PIECES = 48  # of a phase, at least
_FINE = 2048


class RateCourse:
    """A segment from `start` to `end` (tokens of the run).

    Progress is learning rate times tokens, as a share of the whole phase's, and rates are shares of its highest; of the
    phase `unit` where that is given, so that a short trial can be told in terms of the phase it tries.
    """

    def __init__(self, segment: Segment, start: int, end: int, unit: "RateCourse | None" = None) -> None:
        self._start, self._end = start, end
        self._fine = np.linspace(start, end, _FINE + 1)
        rates = np.array([segment.rate(round(place)) for place in self._fine])
        steps = (rates[1:] + rates[:-1]) / 2 * np.diff(self._fine)
        self.area, self.highest = float(steps.sum()), float(rates.max())
        unit = unit or self
        self._done = np.concatenate([[0.0], np.cumsum(steps)]) / unit.area
        self._rates = rates / unit.highest
        self.start_rate = segment.rate(start) / unit.highest if segment.start < start else 0.0

    def points(self, first: int, last: int, places: list[int]) -> np.ndarray:
        """Places from `first` to `last`, close enough together for the equation, these among them: int64[n + 1]."""
        width = (self._end - self._start) / _PIECES
        even = np.linspace(first, last, max(1, round((last - first) / width)) + 1).round().astype(np.int64)
        return np.unique(np.concatenate([even, np.array(places, np.int64)]))

    def between(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Progress from each point to the next, and the rate at the latter."""
        done = np.interp(points, self._fine, self._done)
        return np.diff(done), np.interp(points[1:], self._fine, self._rates)

    def course(self, points: np.ndarray, own: float, all_replay: float, factor: float = 1.0) -> Course:
        """The stretch through these points with shares that stay, and a rate `factor` times as high."""
        progress, rate = self.between(points)
        return Course(progress * factor, rate * factor, np.full(len(progress), own), np.full(len(progress), all_replay))
