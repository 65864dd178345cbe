"""One loop for every phase: schedules in tokens, exact resume, and the forgetting ledger."""

from typing import TYPE_CHECKING

from ..workspace import lazy_exports
from .config import (
    CheckpointConfig,
    LedgerConfig,
    OptimizerConfig,
    ParallelConfig,
    PhaseConfig,
    TelemetryConfig,
    TrainConfig,
)
from .merge_config import MergeConfig
from .phase_config import LearningRate

if TYPE_CHECKING:
    from .activation_checkpointing import checkpoint_activations
    from .chain import chain_fingerprints, fingerprint_large, set_aside
    from .costs import flop_per_token
    from .device import pick_device, resolve_precision
    from .devices import Device, find_device, known_device
    from .gradients import clip_gradients
    from .interrupt import EXIT_STOPPED_BY_SCHEDULER, SCHEDULER_SIGNALS, StoppedByUser
    from .job import is_main_process, world_size
    from .launch import Job, check_job, submit, write_script
    from .ledger import HeldoutScore, heldout_domains, score_heldout
    from .merge import merge_trained
    from .merge_budget import parse_budgets
    from .mixtures import epoch_tokens, resolve_mixture
    from .optimizer import build_optimizer
    from .parallel import build_mesh, check_model, parallelize
    from .parallel_loss import decoder_loss
    from .plan import parse_mesh, plan_training
    from .plan_words import describe_plan, plan_to_json
    from .probe_words import describe_probe
    from .ranks import Ranks, open_crew
    from .rollback import leave_out_quarantined
    from .schedule import build_segments, segment_of
    from .stage import foresee, is_under_way, train
    from .state import TrainingState, resume
    from .telemetry import MetricsFile
    from .trackers import check_trackers
    from .trainer import Loop, run_phase
    from .trials import Trials, probe
    from .vocabulary import chosen_documents


__all__ = [
    "EXIT_STOPPED_BY_SCHEDULER",
    "SCHEDULER_SIGNALS",
    "CheckpointConfig",
    "Device",
    "HeldoutScore",
    "Job",
    "LearningRate",
    "LedgerConfig",
    "Loop",
    "MergeConfig",
    "MetricsFile",
    "OptimizerConfig",
    "ParallelConfig",
    "PhaseConfig",
    "Ranks",
    "StoppedByUser",
    "TelemetryConfig",
    "TrainConfig",
    "TrainingState",
    "Trials",
    "build_mesh",
    "build_optimizer",
    "build_segments",
    "chain_fingerprints",
    "check_job",
    "check_model",
    "check_trackers",
    "checkpoint_activations",
    "chosen_documents",
    "clip_gradients",
    "decoder_loss",
    "describe_plan",
    "describe_probe",
    "epoch_tokens",
    "find_device",
    "fingerprint_large",
    "flop_per_token",
    "foresee",
    "heldout_domains",
    "is_main_process",
    "is_under_way",
    "known_device",
    "leave_out_quarantined",
    "merge_trained",
    "open_crew",
    "parallelize",
    "parse_budgets",
    "parse_mesh",
    "pick_device",
    "plan_to_json",
    "plan_training",
    "probe",
    "resolve_mixture",
    "resolve_precision",
    "resume",
    "run_phase",
    "score_heldout",
    "segment_of",
    "set_aside",
    "submit",
    "train",
    "world_size",
    "write_script",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "HeldoutScore": "ledger",
        "Device": "devices",
        "find_device": "devices",
        "flop_per_token": "costs",
        "foresee": "stage",
        "known_device": "devices",
        "Job": "launch",
        "check_job": "launch",
        "submit": "launch",
        "write_script": "launch",
        "parse_mesh": "plan",
        "plan_training": "plan",
        "Trials": "trials",
        "probe": "trials",
        "describe_probe": "probe_words",
        "describe_plan": "plan_words",
        "plan_to_json": "plan_words",
        "Loop": "trainer",
        "MetricsFile": "telemetry",
        "EXIT_STOPPED_BY_SCHEDULER": "interrupt",
        "SCHEDULER_SIGNALS": "interrupt",
        "StoppedByUser": "interrupt",
        "TrainingState": "state",
        "Ranks": "ranks",
        "build_mesh": "parallel",
        "build_optimizer": "optimizer",
        "check_model": "parallel",
        "check_trackers": "trackers",
        "checkpoint_activations": "activation_checkpointing",
        "clip_gradients": "gradients",
        "decoder_loss": "parallel_loss",
        "is_main_process": "job",
        "is_under_way": "stage",
        "open_crew": "ranks",
        "parallelize": "parallel",
        "world_size": "job",
        "build_segments": "schedule",
        "chain_fingerprints": "chain",
        "fingerprint_large": "chain",
        "heldout_domains": "ledger",
        "leave_out_quarantined": "rollback",
        "epoch_tokens": "mixtures",
        "merge_trained": "merge",
        "parse_budgets": "merge_budget",
        "pick_device": "device",
        "resolve_mixture": "mixtures",
        "resolve_precision": "device",
        "resume": "state",
        "run_phase": "trainer",
        "score_heldout": "ledger",
        "segment_of": "schedule",
        "set_aside": "chain",
        "chosen_documents": "vocabulary",
        "train": "stage",
    },
)
