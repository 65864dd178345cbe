"""One loop for every phase: schedules in tokens, exact resume, and the forgetting ledger."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .config import CheckpointConfig, LearningRate, LedgerConfig, OptimizerConfig, PhaseConfig, TrainConfig

if TYPE_CHECKING:
    from .interrupt import StoppedByUser
    from .ledger import HeldoutScore, score_heldout
    from .stage import train

# What needs torch, and so is imported on first use: name -> module.
_LAZY = {
    "HeldoutScore": "ledger",
    "StoppedByUser": "interrupt",
    "score_heldout": "ledger",
    "train": "stage",
}

__all__ = [
    "CheckpointConfig",
    "HeldoutScore",
    "LearningRate",
    "LedgerConfig",
    "OptimizerConfig",
    "PhaseConfig",
    "StoppedByUser",
    "TrainConfig",
    "score_heldout",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
