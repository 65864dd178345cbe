"""The loop of every phase, and one step of it, read from top to bottom.

It knows nothing of mixtures or languages: any source of batches will do, so supervised tuning uses it too.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aurora_m.model import IGNORED, Decoder, save_model
from aurora_m.workspace import AuroraError, Progress, atomic_folder

from .chain import mark_phase
from .checkpoint import list_checkpoints
from .config import CheckpointConfig, PhaseConfig
from .device import auto_micro_batch, autocast, pipelined_micro_batch
from .gradients import clip_gradients
from .interrupt import StoppedByUser, stop_requests
from .optimizer import set_rate
from .parallel import gather_model
from .parallel_loss import decoder_loss
from .pipelining import Pipeline
from .ranks import SINGLE, Ranks
from .schedule import Segment
from .state import TrainingState
from .telemetry import MetricsFile, round_figures


# ----------------------------------------------------------------------------------------------- one phase
@dataclass(frozen=True)
class Loop:
    """What stays the same over the phases of a run. `measure` takes the ledger, every `measure_every` tokens."""

    out: Path
    checkpoint: CheckpointConfig
    clip: float
    dtype: torch.dtype
    tokenizer: Path | None  # folder whose files go beside the exported weights
    eod_id: int
    progress: Progress
    micro_batch: int | None = None
    measure: Callable[[TrainingState], None] | None = None
    measure_every: int | None = None


def run_phase(state: TrainingState, phase: PhaseConfig, segment: Segment, loop: Loop, fingerprint: str) -> None:
    """Takes the state through the rest of a phase and leaves `<out>/<phase>/model` and a last checkpoint.

    Raises:
        StoppedByUser: SIGINT or SIGTERM; the step was finished and a checkpoint written.
        AuroraError: the loss is not finite (nothing is written), or the disk is full.
    """
    folder = loop.out / phase.name
    if state.phase != phase.name:
        state.begin(phase.name)
    ranks = state.ranks
    if ranks.is_main:
        mark_phase(loop.out, phase.name, fingerprint)
    metrics = MetricsFile(loop.out / "metrics.jsonl")
    device = next(state.model.parameters()).device
    sequences = phase.sequences_per_step // ranks.degree("data")
    micro_batch = loop.micro_batch or auto_micro_batch(
        state.model.config, sequences, phase.sequence_length, device, loop.dtype
    )
    micro_batch = pipelined_micro_batch(micro_batch, sequences, ranks.degree("pipeline"))
    state.model.train()

    remaining = (phase.steps - state.phase_step) * phase.tokens_per_step
    with stop_requests() as stop, loop.progress.task(phase.name, total=remaining, unit="tokens") as task:
        while state.phase_step < phase.steps:
            began = time.monotonic()

            # ---- loss and gradients
            batch = state.batches.next_batch(phase.sequences_per_step)
            result = accumulate_gradients(state.model, batch, micro_batch, loop.dtype, ranks)
            grad_norm = float(clip_gradients(list(state.model.parameters()), loop.clip, ranks))
            if not (math.isfinite(result.loss) and math.isfinite(grad_norm)):
                raise AuroraError(_not_finite(state, phase, result, grad_norm, loop.out))

            # ---- the step
            rate = segment.rate(state.tokens + phase.tokens_per_step)
            set_rate(state.optimizer, rate)
            state.optimizer.step()
            state.optimizer.zero_grad(set_to_none=True)

            # ---- counts and metrics
            seconds = time.monotonic() - began
            state.count(result.tokens_by_domain, seconds)
            if ranks.is_main:
                metrics.write(_metrics_row(state, result, rate, grad_norm, phase.tokens_per_step / seconds))
            task.advance(phase.tokens_per_step, note=f"loss {result.loss:.3f} · lr {rate:.2g}")

            # ---- ledger, end of the phase, checkpoint
            last, stopping = state.phase_step == phase.steps, ranks.any(stop.asked)
            if loop.measure and (last or _is_due(state.tokens, phase.tokens_per_step, loop.measure_every)):
                loop.measure(state)
            if last:
                export_model(state.model, folder / "model", loop.tokenizer, loop.eod_id, ranks)
                state.finished.append(_phase_row(state, phase, result.loss))
            if last or stopping or _is_due(state.tokens, phase.tokens_per_step, loop.checkpoint.every):
                state.metrics_position = metrics.position
                saved = state.save(loop.out, fingerprint, loop.checkpoint.keep)
                if stopping:
                    raise StoppedByUser(
                        f"stopped in phase {phase.name} at step {state.step} ({state.tokens} tokens); checkpoint "
                        f"{saved} written; run the same command again to resume"
                    )


def export_model(
    model: Decoder | Pipeline, folder: Path, tokenizer: Path | None, eod_id: int, ranks: Ranks = SINGLE
) -> None:
    """Writes a model in the Hugging Face layout; it takes the place of an older one in a single move."""
    whole = gather_model(model, ranks)
    with ranks.agreed():
        if whole is not None:
            with atomic_folder(folder) as temporary:
                save_model(whole, temporary, tokenizer, eod_id=eod_id)


def _is_due(tokens: int, tokens_per_step: int, every: int | None) -> bool:
    """Whether the step that ended at `tokens` crossed a multiple of `every`."""
    return every is not None and tokens // every > (tokens - tokens_per_step) // every


def _metrics_row(
    state: TrainingState, result: "StepResult", rate: float, grad_norm: float, tokens_per_second: float
) -> dict[str, Any]:
    return {
        "kind": "step",
        "phase": state.phase,
        "step": state.step,
        "tokens": state.tokens,
        "loss": result.loss,
        "lr": rate,
        "grad_norm": grad_norm,
        "loss_by_domain": result.loss_by_domain,
        "tokens_by_domain": dict(state.tokens_by_domain),
        "tokens_per_second": round_figures(tokens_per_second),
        "seconds": round_figures(state.seconds),
    }


def _phase_row(state: TrainingState, phase: PhaseConfig, final_loss: float) -> dict[str, Any]:
    """The phase's entry in `train.json`. `tokens_asked` differs from `tokens` where steps had to be whole."""
    tokens = phase.steps * phase.tokens_per_step
    return {
        "name": phase.name,
        "tokens": tokens,
        "tokens_asked": phase.tokens,
        "steps": phase.steps,
        "seconds": round(state.phase_seconds, 3),
        "start_tokens": state.tokens - tokens,
        "sequence_length": phase.sequence_length,
        "tokens_per_step": phase.tokens_per_step,
        "mixture": phase.mixture,
        "tokens_by_domain": dict(state.phase_tokens_by_domain),
        "epochs_by_domain": getattr(state.batches, "epochs", {}),
        "final_loss": final_loss,
    }


def _not_finite(state: TrainingState, phase: PhaseConfig, result: "StepResult", grad_norm: float, out: Path) -> str:
    phases = [phase.name, *(row["name"] for row in reversed(state.finished))]
    saved = [folder for name in phases for folder in list_checkpoints(out / name)[-1:]]
    return (
        f"phase {phase.name}, step {state.step + 1}: the loss is {result.loss} and the gradient norm {grad_norm}; "
        f"domains in the batch: {', '.join(result.tokens_by_domain)}; last good checkpoint: "
        f"{saved[0] if saved else 'none yet'}; lower lr.peak, lengthen lr.warmup or use precision: float32"
    )


# ----------------------------------------------------------------------------------------------- one step
@dataclass(frozen=True)
class StepResult:
    """Mean losses in nats per valid token, of the step and of each domain in it; and tokens dealt by domain."""

    loss: float
    loss_by_domain: dict[str, float]
    tokens_by_domain: dict[str, int]


def accumulate_gradients(
    model: Decoder | Pipeline, batch: Any, micro_batch: int, dtype: torch.dtype, ranks: Ranks = SINGLE
) -> StepResult:
    """Gradients of the mean loss over all valid tokens of `batch`, a few sequences at a time.

    Every micro batch is scaled by the valid tokens of the whole step, so how a step is split does not weigh it
    differently. `batch` has numpy arrays `input_ids, targets, positions, document_ids` (B, L) and `domains`, B names;
    all ranks bring the same one, and each works on its own part.
    """
    device = next(model.parameters()).device
    valid = (batch.targets != IGNORED).sum(axis=1)
    scale = 1.0 / max(1, int(valid.sum()))
    own = ranks.own_sequences(len(batch.domains))
    nll_of_sequences = torch.zeros(len(batch.domains), dtype=torch.float64, device=device)

    arrays = tuple(
        torch.from_numpy(array[own]).to(device, non_blocking=True)
        for array in (batch.input_ids, batch.targets, batch.positions, batch.document_ids)
    )
    backward = model.backward if isinstance(model, Pipeline) else partial(_backward, model)
    nll_of_sequences[own] = backward(arrays, micro_batch, scale, dtype)
    # Waits for the device: the only time in a step that it must.
    nll = ranks.sum(nll_of_sequences, "data", "pipeline").tolist()

    nll_sums: dict[str, float] = {}
    valid_counts: dict[str, int] = {}
    tokens: dict[str, int] = {}
    for domain, sequence_nll, sequence_valid in zip(batch.domains, nll, valid.tolist(), strict=True):
        nll_sums[domain] = nll_sums.get(domain, 0.0) + sequence_nll
        valid_counts[domain] = valid_counts.get(domain, 0) + sequence_valid
        tokens[domain] = tokens.get(domain, 0) + batch.targets.shape[1]
    by_domain = {domain: nll_sums[domain] / count for domain, count in valid_counts.items() if count}
    return StepResult(sum(nll) * scale, by_domain, tokens)


def _backward(model: Decoder, arrays: tuple[Tensor, ...], micro_batch: int, scale: float, dtype: torch.dtype) -> Tensor:
    """Adds the gradients of `scale` times the summed loss of these sequences; returns the nll of each (B,), float64."""
    nll = []
    for ids, targets, positions, document_ids in zip(*(array.split(micro_batch) for array in arrays), strict=True):
        with autocast(ids.device, dtype):
            hidden = model(ids, positions=positions, document_ids=document_ids)
            loss, token_nll = decoder_loss(model, hidden, targets, scale)
        loss.backward()
        nll.append(token_nll.sum(dim=1, dtype=torch.float64))
    return torch.cat(nll)
