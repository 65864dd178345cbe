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
    TrainConfig,
)

if TYPE_CHECKING:
    from .chain import chain_fingerprints, fingerprint_large, set_aside
    from .device import pick_device, resolve_precision
    from .devices import find_device
    from .gradients import clip_gradients
    from .interrupt import StoppedByUser
    from .job import is_main_process, world_size
    from .launch import Job, start_script, write_script
    from .ledger import HeldoutScore, heldout_domains, score_heldout
    from .optimizer import build_optimizer
    from .parallel import build_mesh, check_model, parallelize
    from .parallel_loss import decoder_loss
    from .plan import parse_mesh, plan_training
    from .plan_words import describe_plans
    from .ranks import Ranks, open_crew
    from .rollback import leave_out_quarantined
    from .schedule import build_segments, segment_of
    from .stage import train
    from .state import TrainingState, resume
    from .telemetry import MetricsFile
    from .trainer import Loop, run_phase


__all__ = [
    "CheckpointConfig",
    "HeldoutScore",
    "Job",
    "LearningRate",
    "LedgerConfig",
    "Loop",
    "MetricsFile",
    "OptimizerConfig",
    "ParallelConfig",
    "PhaseConfig",
    "Ranks",
    "StoppedByUser",
    "TrainConfig",
    "TrainingState",
    "build_mesh",
    "build_optimizer",
    "build_segments",
    "chain_fingerprints",
    "check_model",
    "clip_gradients",
    "decoder_loss",
    "describe_plans",
    "find_device",
    "fingerprint_large",
    "heldout_domains",
    "is_main_process",
    "leave_out_quarantined",
    "open_crew",
    "parallelize",
    "parse_mesh",
    "pick_device",
    "plan_training",
    "resolve_precision",
    "resume",
    "run_phase",
    "score_heldout",
    "segment_of",
    "set_aside",
    "start_script",
    "train",
    "world_size",
    "write_script",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "HeldoutScore": "ledger",
        "find_device": "devices",
        "Job": "launch",
        "start_script": "launch",
        "write_script": "launch",
        "parse_mesh": "plan",
        "plan_training": "plan",
        "describe_plans": "plan_words",
        "Loop": "trainer",
        "MetricsFile": "telemetry",
        "StoppedByUser": "interrupt",
        "TrainingState": "state",
        "Ranks": "ranks",
        "build_mesh": "parallel",
        "build_optimizer": "optimizer",
        "check_model": "parallel",
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
