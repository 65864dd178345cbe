"""What benchmarks of the training loop share: made documents, the settings of a turn, the time of each step."""

from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from aurora_m.tokens import ShardWriter
from aurora_m.training import PhaseConfig
from aurora_m.workspace import Progress, Task


class Stopwatch(Progress):
    """Progress that remembers at which time of `clock` (seconds) each step ended."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(quiet=True)
        self.clock = clock
        self.times: list[float] = []

    @contextmanager
    def task(self, name: str, total: float | None = None, unit: str = "documents"):
        yield Task(name, total, unit, lambda task: self.times.append(self.clock()))


def write_documents(folder: Path, domains: list[str], vocabulary: int, tokens: tuple[int, int]) -> None:
    """400 documents of random tokens for each domain, at least and less than so many: speed asks for no sense."""
    random = np.random.default_rng(0)
    for domain in domains:
        with ShardWriter(folder / domain, "train", vocabulary) as writer:
            for number in range(400):
                text = random.integers(1, vocabulary, int(random.integers(*tokens)))
                writer.append([*text.tolist(), 0], id=str(number), source="made", lang=None, size=len(text))


def phase_of(steps: int, batch: int, length: int, mixture: dict[str, float]) -> PhaseConfig:
    """A phase of so many steps of `batch` sequences of `length` tokens."""
    return PhaseConfig.model_validate(
        {
            "name": "CAP",
            "tokens": steps * batch * length,
            "mixture": mixture,
            "sequence_length": length,
            "tokens_per_step": batch * length,
            "lr": {"peak": 1e-4},
        }
    )
