"""Steps that would spoil the model are not taken: losses and gradients that are not finite, or that spike.

The decision is made on the device and handed to the fused optimizer as a number, so that no step waits for the host.
The host hears of it a step later; where several steps in a row were bad, it goes back to a checkpoint and leaves the
documents of those steps out (`rollback.py`).

    <phase>/quarantine.json     one entry per way back: step, reason, documents by domain (numbers and ids)
"""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aurora_m.tokens import Batch
from aurora_m.workspace import read_json, write_json

from .config import GuardianConfig

FILE = "quarantine.json"
_LEAST_SEEN_SHARE = 4  # a fourth of the window must be filled before a spike can be told from the usual


class Guardian:
    """The losses and gradient norms of the last steps, and whether the one at hand fits in."""

    def __init__(self, config: GuardianConfig, device: torch.device | str = "cpu") -> None:
        self.config = config
        self._values = torch.zeros(2, config.window, dtype=torch.float32, device=device)
        self._seen = torch.zeros((), dtype=torch.int64, device=device)
        self._slots = torch.arange(config.window, device=device)

    def forget(self) -> None:
        """A new phase has other data: its losses are compared among themselves."""
        self._values.zero_()
        self._seen.zero_()

    @torch.no_grad()
    def judge(self, loss: Tensor, grad_norm: Tensor) -> Tensor:
        """1 where a step is not to be taken, else 0: float32, on the device, as fused optimizers take it.

        A spike is a loss or gradient norm more than `sigma` deviations above the mean of the last `window` steps. It
        enters the window as the highest value that would have been none, so that it hides no second one.
        """
        new = torch.stack([loss.detach().float(), grad_norm.detach().float()])
        finite = torch.isfinite(new).all()
        count = self._seen.clamp(max=self.config.window)
        known = self._slots < count
        mean = (self._values * known).sum(dim=1) / count.clamp(min=1)
        variance = ((self._values - mean.unsqueeze(1)).square() * known).sum(dim=1) / (count - 1).clamp(min=1)
        limit = torch.full_like(mean, torch.inf)
        if self.config.sigma is not None:
            limit = limit.where(
                count < self.config.window // _LEAST_SEEN_SHARE, mean + self.config.sigma * variance.sqrt()
            )
        entry = torch.minimum(new, limit).unsqueeze(1)
        self._values.copy_(torch.where(finite & (self._slots == self._seen % self.config.window), entry, self._values))
        self._seen += finite
        return (~finite | (new > limit).any()).float()

    def tensors(self) -> dict[str, Tensor]:
        """Live tensors for checkpoints."""
        return {"guardian.values": self._values, "guardian.seen": self._seen}


def reason_of(loss: float, grad_norm: float) -> str:
    """Why a step was not taken, for people."""
    for name, value in (("loss", loss), ("gradient norm", grad_norm)):
        if not math.isfinite(value):
            return f"{name} {value}"
    return f"spike (loss {loss:.4g}, gradient norm {grad_norm:.4g})"


def documents_of(batch: Batch, nll_of_sequences: Iterable[float]) -> dict[str, list[int]]:
    """The documents of a batch by domain: of the sequences whose loss is not finite, where there are such, else all."""
    nll = list(nll_of_sequences)
    broken = [not math.isfinite(one) for one in nll]
    found: dict[str, set[int]] = {}
    for domain, documents, is_broken in zip(batch.domains, batch.documents, broken, strict=True):
        if is_broken or not any(broken):
            found.setdefault(domain, set()).update(documents)
    return {domain: sorted(numbers) for domain, numbers in sorted(found.items())}


def merged(documents: Iterable[dict[str, list[int]]]) -> dict[str, list[int]]:
    """Documents of several batches by domain, each once, ascending."""
    together: dict[str, set[int]] = {}
    for one in documents:
        for domain, numbers in one.items():
            together.setdefault(domain, set()).update(numbers)
    return {domain: sorted(numbers) for domain, numbers in sorted(together.items())}


def read_quarantine(phase_folder: Path) -> list[dict[str, Any]]:
    """The entries of a phase, oldest first."""
    path = phase_folder / FILE
    return read_json(path) if path.exists() else []


def write_quarantine(phase_folder: Path, entries: list[dict[str, Any]]) -> None:
    """Before the way back, so that a kill on it loses nothing."""
    write_json(phase_folder / FILE, entries)
