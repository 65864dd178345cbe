"""Training metrics for plotting: a `metrics.jsonl` of any length as a few hundred points."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aurora_m.release import is_on

MAX_POINTS = 400
_MAX_LINE_BYTES = 1 << 20


@dataclass
class Point:
    """A stretch of training steps of one phase, drawn as one point."""

    phase: str
    tokens: int = 0  # seen when the stretch ended
    steps: int = 0
    loss: float = 0.0  # mean over the stretch
    loss_low: float = float("inf")
    loss_high: float = float("-inf")
    lr: float = 0.0
    grad_norm: float | None = None
    loss_by_domain: dict[str, float] = field(default_factory=dict)
    tokens_by_domain: dict[str, int] = field(default_factory=dict)  # cumulative, as logged
    _seen_by_domain: dict[str, int] = field(default_factory=dict)

    def take(self, row: dict[str, Any]) -> None:
        """Adds one step to the stretch. Losses are averaged; rates and counters keep their last value."""
        self.steps += 1
        self.tokens, self.lr = row["tokens"], row.get("lr") or 0.0
        self.loss += (row["loss"] - self.loss) / self.steps
        self.loss_low, self.loss_high = min(self.loss_low, row["loss"]), max(self.loss_high, row["loss"])
        self.grad_norm = row.get("grad_norm")
        self.tokens_by_domain = row.get("tokens_by_domain") or self.tokens_by_domain
        for domain, loss in (row.get("loss_by_domain") or {}).items():
            if loss is not None:
                seen = self._seen_by_domain[domain] = self._seen_by_domain.get(domain, 0) + 1
                mean = self.loss_by_domain.get(domain, 0.0)
                self.loss_by_domain[domain] = mean + (loss - mean) / seen


def read_points(
    path: Path, max_points: int = MAX_POINTS, domain: str | None = None, line: dict[str, float] | None = None
) -> list[Point]:
    """Reads the steps of a metrics file as at most about `max_points` stretches; none crosses a phase boundary.

    `line`: only the steps of these phases, up to so many tokens of the run. With `domain`, a point's loss is that
    domain's, and steps without it are left out. The file is read twice and never held: memory does not grow with it.
    """
    if not path.exists():
        return []
    steps = sum(1 for _ in _steps(path, domain, line))
    stride = max(1, -(-steps // max_points))
    points: list[Point] = []
    for row in _steps(path, domain, line):
        if not points or points[-1].phase != row["phase"] or points[-1].steps >= stride:
            points.append(Point(row["phase"]))
        points[-1].take(row)
    return points


def _steps(path: Path, domain: str | None = None, line: dict[str, float] | None = None) -> Iterator[dict[str, Any]]:
    """The step rows of a metrics file. A half line (a run still writing, or killed) is passed over."""
    with path.open("rb") as file:
        while text := file.readline(_MAX_LINE_BYTES):
            try:
                row = json.loads(text)
            except ValueError:
                continue
            if domain is not None and isinstance(row, dict):
                row["loss"] = (row.get("loss_by_domain") or {}).get(domain)
            if isinstance(row, dict) and row.get("kind") == "step" and isinstance(row.get("loss"), (int, float)):
                row = {"phase": "", "tokens": 0, **row}
                if is_on(line or {}, row["phase"], row["tokens"]):
                    yield row


def tokens_between(points: list[Point], domains: list[str]) -> list[dict[str, int]]:
    """Tokens each domain got within each stretch, from the counters; a counter that fell has started anew."""
    before: dict[str, int] = {}
    given = []
    for point in points:
        now = {domain: point.tokens_by_domain.get(domain, 0) for domain in domains}
        started_anew = any(now[domain] < before.get(domain, 0) for domain in domains)
        given.append({d: now[d] - (0 if started_anew else before.get(d, 0)) for d in domains})
        before = now
    return given
