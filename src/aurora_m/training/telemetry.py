"""metrics.jsonl: one JSON object per line, cut back to a checkpoint's position on resume."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


class MetricsFile:
    """Appends rows; `position` (bytes) belongs into the checkpoint, `cut` goes back to it.

    Only one process `writes`; of the others nothing goes into the file. `track` hears of every row that does."""

    def __init__(self, path: Path, writes: bool = True, track: Callable[[dict[str, Any]], None] | None = None) -> None:
        self.path, self.writes, self._track = path, writes, track

    @property
    def position(self) -> int:
        """Bytes written so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def write(self, row: dict[str, Any]) -> None:
        """Appends one row. The file is opened anew, so that a kill can lose at most the line being written."""
        if not self.writes:
            return
        line = json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line)
        if self._track is not None:
            self._track(row)

    def cut(self, position: int) -> str:
        """Cuts the file back to `position` and returns what was behind it."""
        if not self.writes or position >= self.position:
            return ""
        with self.path.open("r+b") as file:
            file.seek(position)
            removed = file.read()
            file.truncate(position)
            os.fsync(file.fileno())
        return removed.decode(errors="replace")


def round_figures(value: float, figures: int = 6) -> float:
    """A measured value rounded to significant figures, for rows that people read."""
    return float(f"{value:.{figures}g}")
