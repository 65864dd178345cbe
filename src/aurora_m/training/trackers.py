"""What `metrics.jsonl` and the ledger say, in TensorBoard and Weights & Biases too; trouble there never stops training.

train/tensorboard/          events, written anew from metrics.jsonl on every start and way back; x axis: tokens
train/wandb/                what wandb keeps (offline: what `wandb sync` sends)
train/wandb-run.json        the run's id there, what it is a run of, and up to which step it has been told
"""

import json
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from aurora_m.workspace import Progress, RecipeError, read_json, write_json

from .config import TelemetryConfig, WandbConfig

_RUN = "wandb-run.json"


def check_trackers(config: TelemetryConfig) -> None:
    """Checks that what the recipe names is installed.

    Raises:
        RecipeError: it is not.
    """
    for name, wanted in (("tensorboard", config.tensorboard), ("wandb", config.wandb)):
        if wanted and find_spec(name) is None:
            raise RecipeError(f"train.telemetry.{name} needs the package {name}: pip install 'aurora-m[telemetry]'")


class Tracker(Protocol):
    """Takes figures by name, in order of steps."""

    def log(self, step: int, tokens: int, figures: dict[str, float]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files of one folder, which is emptied first."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        if folder.exists():
            shutil.rmtree(folder)
        self._writer = SummaryWriter(str(folder))

    def log(self, step: int, tokens: int, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, tokens)

    def close(self) -> None:
        self._writer.close()


class Wandb:
    """A run there, gone on with as long as `identity` is the same.

    It takes no point back: steps up to the last one it was told are left out when they come again.
    """

    def __init__(self, config: WandbConfig, out: Path, identity: str, last_step: int, settings: dict[str, Any]) -> None:
        import wandb

        known = read_json(out / _RUN) if (out / _RUN).exists() else {}
        if known.get("identity") != identity:
            known = {"id": secrets.token_hex(4), "identity": identity, "step": -1}
            last_step = -1
        self._told = max(known["step"], last_step)
        write_json(out / _RUN, known | {"step": self._told})
        self._run = wandb.init(
            project=config.project,
            entity=config.entity,
            mode=config.mode,
            id=known["id"],
            resume="allow",
            dir=str(out),
            config=settings,
            settings=wandb.Settings(
                silent=True, console="off", init_timeout=30, finish_timeout=60, disable_git=True, save_code=False
            ),
        )
        self._run.define_metric("*", step_metric="tokens")

    def log(self, step: int, tokens: int, figures: dict[str, float]) -> None:
        if step > self._told:
            self._run.log({**figures, "tokens": tokens}, step=step)

    def close(self) -> None:
        self._run.finish()


class Trackers:
    """Those that the recipe names, on the main rank; the first trouble with one costs a warning, and it is left out.

    `identity` says what is trained (the chain's last fingerprint), `settings` goes with a new run.
    """

    def __init__(
        self, config: TelemetryConfig, out: Path, identity: str, settings: dict[str, Any], progress: Progress
    ) -> None:
        self._config, self._out, self._progress = config, out, progress
        self._identity, self._settings = identity, settings
        self._open: dict[str, Tracker] = {}
        self._skipped = 0

    def start(self, ledger: list[dict[str, Any]], removed: str = "") -> None:
        """Opens them and tells them all that metrics.jsonl and `ledger` say; `removed` was just cut off the former."""
        rows = [row for row in _rows(removed.splitlines()) if "step" in row]
        wandb = self._config.wandb
        if self._config.tensorboard:
            self._try("tensorboard", lambda: self._add("tensorboard", TensorBoard(self._out / "tensorboard")))
        if wandb:
            last = max((row["step"] for row in [*self._written(), *rows] if row.get("kind") == "step"), default=-1)
            self._try(
                "wandb", lambda: self._add("wandb", Wandb(wandb, self._out, self._identity, last, self._settings))
            )
        self._replay(ledger)

    def rewrite(self, ledger: list[dict[str, Any]]) -> None:
        """After a way back: TensorBoard from the start, without the rows that were cut off."""
        if "tensorboard" in self._open:
            self._try("tensorboard", self._open.pop("tensorboard").close)
            self._try("tensorboard", lambda: self._add("tensorboard", TensorBoard(self._out / "tensorboard")))
            self._replay(ledger)

    def row(self, row: dict[str, Any]) -> None:
        """A row of metrics.jsonl."""
        if row.get("kind") == "skipped":
            self._skipped += 1
        if row.get("kind") in ("step", "skipped"):
            self._log(row["step"], row["tokens"], figures_of(row) | {"skipped_steps": self._skipped})

    def ledger(self, rows: list[dict[str, Any]]) -> None:
        """Rows of the ledger, of one measurement."""
        figures: dict[str, float] = {}
        for row in rows:
            figures[f"bpb/{row['domain']}"] = row["bpb"]
            if row["change"] is not None:
                figures[f"bpb_change/{row['domain']}"] = row["change"]
        if figures:
            self._log(rows[0]["step"], rows[0]["tokens"], figures)

    def __enter__(self) -> "Trackers":
        return self

    def __exit__(self, *arguments: object) -> None:
        for name in list(self._open):
            self._try(name, self._open[name].close)
        self._open = {}

    def _replay(self, ledger: list[dict[str, Any]]) -> None:
        self._skipped = 0
        measured: dict[int, list[dict[str, Any]]] = {}
        for row in ledger:
            measured.setdefault(row["step"], []).append(row)
        self.ledger(measured.pop(0, []))
        for row in self._written() if self._open else ():
            self.row(row)
            if row.get("kind") in ("step", "skipped"):
                self.ledger(measured.pop(row["step"], []))

    def _written(self) -> Iterator[dict[str, Any]]:
        path = self._out / "metrics.jsonl"
        if path.exists():
            with path.open(encoding="utf-8", errors="replace") as file:
                yield from _rows(file)

    def _add(self, name: str, tracker: Tracker) -> None:
        self._open[name] = tracker

    def _log(self, step: int, tokens: int, figures: dict[str, float]) -> None:
        for name, tracker in list(self._open.items()):
            self._try(name, lambda tracker=tracker: tracker.log(step, tokens, figures))

    def _try(self, name: str, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # a network, a disk, a service: whatever it is, training goes on
            self._open.pop(name, None)
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            self._progress.say(f"warning: {name} is left out from here on ({reason}); metrics.jsonl goes on")


def figures_of(row: dict[str, Any]) -> dict[str, float]:
    """The figures of a step's row, named as they are drawn."""
    names = ("step", "loss", "lr", "grad_norm", "tokens_per_second", "data_wait", "checkpoint_seconds", "kwh")
    figures = {name: row[name] for name in names if row.get(name) is not None}
    by_domain = {f"loss/{domain}": loss for domain, loss in (row.get("loss_by_domain") or {}).items()}
    return figures | by_domain


def _rows(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue  # cut short by a kill
        if isinstance(row, dict):
            yield row
