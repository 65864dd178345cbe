"""One loop for every phase: schedules in tokens, exact resume, and the forgetting ledger."""

from typing import TYPE_CHECKING

from ..workspace import lazy_exports
from .config import (
    CheckpointConfig,
    LearningRate,
    LedgerConfig,
    OptimizerConfig,
    ParallelConfig,
    PhaseConfig,
    TelemetryConfig,
    TrainConfig,
)

if TYPE_CHECKING:
    from .activation_checkpointing import checkpoint_activations
    from .chain import chain_fingerprints, fingerprint_large, set_aside
    from .device import pick_device, resolve_precision
    from .gradients import clip_gradients
    from .interrupt import StoppedByUser
    from .job import is_main_process, world_size
    from .ledger import HeldoutScore, heldout_domains, score_heldout
    from .optimizer import build_optimizer
    from .parallel import build_mesh, check_model, parallelize
    from .parallel_loss import decoder_loss
    from .ranks import Ranks, open_crew
    from .rollback import leave_out_quarantined
    from .schedule import build_segments, segment_of
    from .stage import train
    from .state import TrainingState, resume
    from .telemetry import MetricsFile
    from .trackers import check_trackers
    from .trainer import Loop, run_phase


__all__ = [
    "CheckpointConfig",
    "HeldoutScore",
    "LearningRate",
    "LedgerConfig",
    "Loop",
    "MetricsFile",
    "OptimizerConfig",
    "ParallelConfig",
    "PhaseConfig",
    "Ranks",
    "StoppedByUser",
    "TelemetryConfig",
    "TrainConfig",
    "TrainingState",
    "build_mesh",
    "build_optimizer",
    "build_segments",
    "chain_fingerprints",
    "check_model",
    "check_trackers",
    "checkpoint_activations",
    "clip_gradients",
    "decoder_loss",
    "fingerprint_large",
    "heldout_domains",
    "is_main_process",
    "leave_out_quarantined",
    "open_crew",
    "parallelize",
    "pick_device",
    "resolve_precision",
    "resume",
    "run_phase",
    "score_heldout",
    "segment_of",
    "set_aside",
    "train",
    "world_size",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "HeldoutScore": "ledger",
        "Loop": "trainer",
        "MetricsFile": "telemetry",
        "StoppedByUser": "interrupt",
        "TrainingState": "state",
        "Ranks": "ranks",
        "build_mesh": "parallel",
        "build_optimizer": "optimizer",
        "check_model": "parallel",
        "checkpoint_activations": "activation_checkpointing",
        "check_trackers": "trackers",
        "clip_gradients": "gradients",
        "decoder_loss": "parallel_loss",
        "is_main_process": "job",
        "open_crew": "ranks",
        "parallelize": "parallel",
        "world_size": "job",
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
