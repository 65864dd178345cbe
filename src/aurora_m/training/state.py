"""Everything that training changes, and how it comes back from a checkpoint."""

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from aurora_m.model import Decoder
from aurora_m.tokens import Batch
from aurora_m.workspace import DataError, Progress

from .chain import Chain, fingerprints_of, unused
from .checkpoint import (
    checkpoint_folder,
    list_checkpoints,
    load_checkpoint,
    prune_checkpoints,
    random_tensors,
    read_record,
    restore_random,
)
from .checkpoint_writer import CheckpointWriter
from .config import CheckpointConfig, GuardianConfig
from .energy import EnergyMeter, add_joules
from .guardian import Guardian
from .optimizer import state_tensors
from .pipelining import Pipeline
from .ranks import SINGLE, Ranks


class BatchSource(Protocol):
    """Where batches come from: pretraining's mixture, or the tuning examples of `safety`."""

    def next_batch(self, sequences: int, /) -> Batch: ...

    def quarantine(self, documents: Mapping[str, Iterable[int]], /) -> None: ...

    def names_of(self, documents: Mapping[str, Iterable[int]], /) -> dict[str, list[str]]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> None: ...


@dataclass
class TrainingState:
    """The model and its place in the run. `step`, `tokens` and `tokens_by_domain` count over all phases."""

    model: Decoder | Pipeline
    optimizer: torch.optim.Optimizer
    batches: BatchSource
    phase: str = ""
    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    phase_step: int = 0
    phase_seconds: float = 0.0
    phase_tokens_by_domain: dict[str, int] = field(default_factory=dict)
    tokens_by_domain: dict[str, int] = field(default_factory=dict)
    finished: list[dict[str, Any]] = field(default_factory=list)  # the rows of train.json's "phases"
    ledger: list[dict[str, Any]] = field(default_factory=list)
    metrics_position: int = 0
    began_at: list[Any] = field(default_factory=list)
    """Phase and step of the checkpoint that the phase began with; empty where it began with the initial model."""
    last_loss: float | None = None
    """Of the last step that was taken and whose figures are known."""
    decisions: list[dict[str, Any]] = field(default_factory=list)
    """Of the guardrails, over all phases."""
    bad_steps: list[dict[str, Any]] = field(default_factory=list)
    """The bad steps up to the last one, in a row: number, reason, documents."""
    joules: dict[str, float] = field(default_factory=dict)
    """Of all ranks together, by kind; empty where nothing is measured."""
    phase_joules: dict[str, float] = field(default_factory=dict)
    guardian: Guardian = field(default=None)  # type: ignore[assignment] -- made for the model's device where not given
    ranks: Ranks = SINGLE
    writer: CheckpointWriter = field(default_factory=CheckpointWriter)
    meter: EnergyMeter = field(default_factory=EnergyMeter)

    def __post_init__(self) -> None:
        if self.guardian is None:
            self.guardian = Guardian(GuardianConfig(), next(self.model.parameters()).device)

    @property
    def rate_factor(self) -> float:
        """By which the guardrails multiply the phase's learning rate now."""
        own = [row for row in self.decisions if row["phase"] == self.phase]
        return own[-1]["rate_factor"] if own else 1.0

    def begin(self, phase: str) -> None:
        """Turns to a phase at its first step."""
        self.began_at = [self.phase, self.step] if self.phase and self.step else []
        self.phase, self.phase_step, self.phase_seconds, self.phase_tokens_by_domain = phase, 0, 0.0, {}
        self.bad_steps = []
        self.phase_joules = {}
        self.guardian.forget()

    def count(self, tokens_by_domain: dict[str, int], seconds: float) -> None:
        """Counts one step."""
        self.step += 1
        self.phase_step += 1
        self.seconds += seconds
        self.phase_seconds += seconds
        for domain, tokens in tokens_by_domain.items():
            self.tokens += tokens
            for counts in (self.tokens_by_domain, self.phase_tokens_by_domain):
                counts[domain] = counts.get(domain, 0) + tokens

    def take_energy(self) -> None:
        """Counts the energy since the last call; all ranks call it together."""
        taken = self.ranks.gather(self.meter.take())
        for joules in (self.joules, self.phase_joules):
            add_joules(joules, taken)

    def save(
        self,
        out: Path,
        fingerprint: str,
        config: CheckpointConfig,
        batches: dict[str, Any],
        branches: Sequence[int] = (),
        *,
        wait: bool,
    ) -> Path:
        """Has a checkpoint of the phase written, and those deleted that need not stay; `batches` is the data's state,
        `branches` the tokens of the run at which other phases begin.

        It is there on return with `wait`, otherwise when the writer is through.

        Raises:
            AuroraError: it, or the one before it, could not be written.
        """
        phase_folder = out / self.phase
        folder = checkpoint_folder(phase_folder, self.step)
        record = {name: getattr(self, name) for name in _RECORDED}
        record |= {"fingerprint": fingerprint, "batches": batches}
        # While steps are bad a good one might go, and training may have to go back to it.
        prunes = self.ranks.is_main and not self.bad_steps

        def prune() -> None:
            if prunes:
                prune_checkpoints(phase_folder, config.keep, config.keep_every, branches)

        self.writer.save(folder, self._tensors(), record, prune, wait=wait)
        return folder

    def load(self, folder: Path) -> None:
        """Goes back to a checkpoint.

        Raises:
            DataError: it is damaged; nothing was loaded.
            AuroraError: it holds other tensors than the model.
        """
        tensors = self._tensors()
        record = load_checkpoint(folder, tensors, self.ranks)
        restore_random(tensors)
        for name in _RECORDED:
            setattr(self, name, record.get(name, copy(_LATER[name])) if name in _LATER else record[name])
        self.batches.load_state_dict(record["batches"])

    def _tensors(self) -> dict[str, Tensor]:
        return state_tensors(self.model, self.optimizer) | self.guardian.tensors() | random_tensors()


_RECORDED = (
    "phase",
    "step",
    "tokens",
    "seconds",
    "phase_step",
    "phase_seconds",
    "phase_tokens_by_domain",
    "tokens_by_domain",
    "finished",
    "ledger",
    "metrics_position",
    "last_loss",
    "bad_steps",
    "joules",
    "phase_joules",
    "began_at",
    "decisions",
)
# Checkpoints written before these were recorded have none.
_LATER: dict[str, Any] = {"joules": {}, "phase_joules": {}, "began_at": [], "decisions": []}


def resume(state: TrainingState, out: Path, chain: Chain, progress: Progress) -> bool:
    """Loads the newest checkpoint that belongs to the chain and is whole; False where there is none.

    Damaged ones cost a line of warning and the steps since the one before; they are moved to `superseded/`.
    """
    for name, fingerprint in reversed(chain):
        accepted = state.ranks.from_main(fingerprints_of(out, name, fingerprint))
        for folder in reversed(state.ranks.from_main(list_checkpoints(out / name))):
            try:
                with state.ranks.agreed():
                    record = read_record(folder)
                if record.get("fingerprint") not in accepted:
                    continue
                state.load(folder)
            except DataError as error:
                progress.say(f"warning: {error}; going back to the one before it")
                if state.ranks.is_main:
                    move_damaged(out, folder)
                continue
            return True
    return False


def move_damaged(out: Path, folder: Path) -> None:
    """Moves a checkpoint that cannot be loaded to `superseded/`."""
    target = unused(out / "superseded" / f"{folder.parent.parent.name}-{folder.name}-damaged")
    target.parent.mkdir(exist_ok=True)
    folder.rename(target)
