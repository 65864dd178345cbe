"""What the first reading leaves for repeated text to be found by: in memory, and in the files of a partition."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from .array_files import ArrayFile, open_array
from .config import RepeatedTextConfig
from .passages import Passages, find_passages
from .segments import Segments
from .spans import WordRuns, word_runs

# Files of a partition: type, and values in a row.
_FILES = {
    "passage-keys": (np.uint64, 1),
    "passage-spans": (np.uint32, 4),
    "run-words": (np.uint32, 1),
    "run-keys": (np.uint64, 1),
    "run-starts": (np.uint32, 1),
}


@dataclass(frozen=True)
class Repeatable:
    """What the repeats of n texts are found by."""

    passages: Passages | None
    runs: WordRuns | None

    @classmethod
    def of(cls, texts: pa.LargeStringArray, segments: Segments, config: RepeatedTextConfig) -> "Repeatable":
        """Of texts, of which the segments are."""
        passages = runs = None
        if config.unit != "none":
            by_line = config.unit == "lines"
            passages = find_passages(texts, segments, by_line=by_line, min_words=config.min_words)
        if config.spans != "none":
            runs = word_runs(texts, segments, config.span_words)
        return cls(passages, runs)

    def words(self) -> np.ndarray:
        """All words of each text, int64[n]."""
        if self.runs is not None:
            return np.diff(self.runs.word_offsets)
        assert self.passages is not None, "something is compared"
        return self.passages.words.astype(np.int64)


class RepeatableWriter:
    """Gathers that of many batches in files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, ArrayFile] = {}
        self._counts: dict[str, list[np.ndarray]] = {}

    def add(self, repeatable: Repeatable) -> None:
        """Adds the next documents."""
        passages, runs = repeatable.passages, repeatable.runs
        if passages is not None:
            self._append({"passage-keys": passages.keys, "passage-spans": passages.spans})
            self._count({"passages": np.diff(passages.offsets), "words": passages.words})
        if runs is not None:
            self._append({"run-words": runs.words, "run-keys": runs.keys, "run-starts": runs.starts})
            self._count({"run_words": np.diff(runs.word_offsets), "run_keys": np.diff(runs.key_offsets)})

    def counts(self) -> dict[str, np.ndarray]:
        """What `open_repeatable` needs beside the files: rows by document."""
        return {name: np.concatenate(some) for name, some in self._counts.items()}

    def _append(self, rows: dict[str, np.ndarray]) -> None:
        for name, values in rows.items():
            if name not in self._files:
                self._files[name] = ArrayFile(self._folder / f"{name}.bin", *_FILES[name])
            self._files[name].append(values)

    def _count(self, counts: dict[str, np.ndarray]) -> None:
        for name, some in counts.items():
            self._counts.setdefault(name, []).append(some)


def open_repeatable(folder: Path, counts: dict[str, np.ndarray]) -> Repeatable | None:
    """What a writer gathered, mapped from the files; None where that is nothing."""
    if not counts:
        return None

    def rows(name: str) -> np.ndarray:
        return open_array(folder / f"{name}.bin", *_FILES[name])

    def offsets(name: str) -> np.ndarray:
        return np.concatenate([[0], counts[name]]).cumsum().astype(np.int64)

    passages = runs = None
    if "passages" in counts:
        passages = Passages(rows("passage-keys"), rows("passage-spans"), offsets("passages"), counts["words"])
    if "run_words" in counts:
        runs = WordRuns(
            rows("run-words"), offsets("run_words"), rows("run-keys"), rows("run-starts"), offsets("run_keys")
        )
    return Repeatable(passages, runs)
