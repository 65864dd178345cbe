"""Progress of long work: a live bar with rate and ETA on a terminal, a line now and then in a log."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from .section import format_count

_LOG_EVERY_SECONDS = 10.0


class Task:
    """One piece of long work. `advance` is cheap: it draws at most a few times a second."""

    def __init__(self, name: str, total: float | None, unit: str, draw) -> None:
        self.name, self.total, self.unit, self.note = name, total, unit, ""
        self.done = 0.0
        self.started = time.monotonic()
        self._draw = draw

    def advance(self, amount: float = 1, note: str | None = None) -> None:
        """Reports `amount` more of the unit done; `note` (loss, reason) is shown beside the bar."""
        self.done += amount
        self.note = self.note if note is None else note
        self._draw(self)

    @property
    def rate(self) -> float:
        """Units per second since the task began."""
        return self.done / max(time.monotonic() - self.started, 1e-9)

    def describe(self) -> str:
        """The task in one line: `CAP 1.2M/4M tokens · 8.1K tokens/s · 5:45 left · loss 3.21`."""
        amount = format_count(self.done) + (f"/{format_count(self.total)}" if self.total else "")
        parts = [f"{self.name} {amount} {self.unit}", f"{format_count(self.rate)} {self.unit}/s"]
        if self.total and self.done:
            parts.append(f"{_clock((self.total - self.done) / self.rate)} left")
        return " · ".join([*parts, self.note] if self.note else parts)


class Progress:
    """Where long work reports. `Progress(quiet=True)` shows nothing; a log gets a line every ten seconds."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet

    def say(self, message: str) -> None:
        """One line of information."""
        if not self.quiet:
            print(message, flush=True)

    @contextmanager
    def task(self, name: str, total: float | None = None, unit: str = "documents") -> Iterator[Task]:
        """A task to advance. `total` None shows a count without ETA."""
        if self.quiet:
            yield Task(name, total, unit, lambda task: None)
        elif sys.stdout.isatty():
            yield from self._live_task(name, total, unit)
        else:
            yield from self._logged_task(name, total, unit)

    def _live_task(self, name: str, total: float | None, unit: str) -> Iterator[Task]:
        from rich.progress import BarColumn, SpinnerColumn, TextColumn
        from rich.progress import Progress as Bar

        with Bar(SpinnerColumn(), BarColumn(), TextColumn("{task.description}", markup=False), transient=True) as bar:
            shown = bar.add_task(name, total=total)
            last_drawn = 0.0

            def draw(task: Task) -> None:
                nonlocal last_drawn
                if time.monotonic() - last_drawn > 0.2:
                    last_drawn = time.monotonic()
                    bar.update(shown, completed=task.done, description=task.describe())

            task = Task(name, total, unit, draw)
            yield task
        print(_summary(task), flush=True)

    def _logged_task(self, name: str, total: float | None, unit: str) -> Iterator[Task]:
        last_logged = time.monotonic()

        def draw(task: Task) -> None:
            nonlocal last_logged
            if time.monotonic() - last_logged > _LOG_EVERY_SECONDS:
                last_logged = time.monotonic()
                print(f"  {task.describe()}", flush=True)

        task = Task(name, total, unit, draw)
        yield task
        print(_summary(task), flush=True)


def _summary(task: Task) -> str:
    seconds = time.monotonic() - task.started
    line = f"  {task.name}: {format_count(task.done)} {task.unit} in {seconds:.1f} s ({format_count(task.rate)}/s)"
    return f"{line} · {task.note}" if task.note else line


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
