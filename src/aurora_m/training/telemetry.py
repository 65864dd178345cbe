"""metrics.jsonl: one JSON object per line, cut back to a checkpoint's position on resume."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from aurora_m.workspace import atomic_path


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

    def cut_phases(self, last_steps: Mapping[str, int], others: bool = True) -> str:
        """Takes out the rows of each phase after its last step, and those of other phases unless `others` stay.

        Returns what was taken out. The rows of phases that branch off the same one lie behind each other, so the end of
        the file alone would not do.
        """
        if not self.writes or not self.path.exists():
            return ""
        kept: list[bytes] = []
        removed: list[bytes] = []
        position = first = 0
        with self.path.open("rb") as file:
            for line in file:
                if not _stays(line, last_steps, others):
                    first = first if removed else position
                    removed.append(line)
                elif removed:
                    kept.append(line)
                position += len(line)
        if kept:
            with atomic_path(self.path) as temporary, temporary.open("wb") as target:
                with self.path.open("rb") as file:
                    target.write(file.read(first))
                target.writelines(kept)
        elif removed:
            self.cut(first)
        return b"".join(removed).decode(errors="replace")


def _stays(line: bytes, last_steps: Mapping[str, int], others: bool) -> bool:
    try:
        row = json.loads(line)
        phase, step = row["phase"], row["step"]
    except (ValueError, KeyError, TypeError):
        return False  # cut short by a kill
    return step <= last_steps[phase] if phase in last_steps else others


def round_figures(value: float, figures: int = 6) -> float:
    """A measured value rounded to significant figures, for rows that people read."""
    return float(f"{value:.{figures}g}")
