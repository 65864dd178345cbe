"""One loop for every phase: schedules in tokens, exact resume, and the forgetting ledger."""

from typing import TYPE_CHECKING

from ..workspace import lazy_exports
from .config import CheckpointConfig, LearningRate, LedgerConfig, OptimizerConfig, PhaseConfig, TrainConfig

if TYPE_CHECKING:
    from .chain import chain_fingerprints, fingerprint_large, set_aside
    from .device import pick_device, resolve_precision
    from .interrupt import StoppedByUser
    from .ledger import HeldoutScore, heldout_domains, score_heldout
    from .optimizer import build_optimizer
    from .rollback import leave_out_quarantined
    from .schedule import build_segments, segment_of
    from .stage import train
    from .state import TrainingState, resume
    from .telemetry import MetricsFile
    from .trainer import Loop, run_phase


__all__ = [
    "CheckpointConfig",
    "HeldoutScore",
    "LearningRate",
    "LedgerConfig",
    "Loop",
    "MetricsFile",
    "OptimizerConfig",
    "PhaseConfig",
    "StoppedByUser",
    "TrainConfig",
    "TrainingState",
    "build_optimizer",
    "build_segments",
    "chain_fingerprints",
    "fingerprint_large",
    "heldout_domains",
    "leave_out_quarantined",
    "pick_device",
    "resolve_precision",
    "resume",
    "run_phase",
    "score_heldout",
    "segment_of",
    "set_aside",
    "train",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "HeldoutScore": "ledger",
        "Loop": "trainer",
        "MetricsFile": "telemetry",
        "StoppedByUser": "interrupt",
        "TrainingState": "state",
        "build_optimizer": "optimizer",
        "build_segments": "schedule",
        "chain_fingerprints": "chain",
        "fingerprint_large": "chain",
        "heldout_domains": "ledger",
        "leave_out_quarantined": "rollback",
        "pick_device": "device",
        "resolve_precision": "device",
        "resume": "state",
        "run_phase": "trainer",
        "score_heldout": "ledger",
        "segment_of": "schedule",
        "set_aside": "chain",
        "train": "stage",
    },
)
