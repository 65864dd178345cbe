"""The loop of every phase, and one step of it, read from top to bottom.

It knows nothing of mixtures or languages: any source of batches will do, so supervised tuning uses it too.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aurora_m.model import Decoder, save_model, write_model
from aurora_m.tokens import Batch
from aurora_m.workspace import AuroraError, Progress, Task, atomic_folder

from .chain import mark_phase
from .checkpoint_writer import CheckpointWriter
from .config import ActivationCheckpointing, CheckpointConfig, PhaseConfig
from .device import auto_micro_batch, autocast, pipelined_micro_batch
from .energy import describe_energy
from .feed import Feed
from .gather import gather_tensors
from .gradients import clip_gradients, keep_only_embeddings
from .guardian import documents_of, reason_of
from .interrupt import EXIT_STOPPED_BY_SCHEDULER, StoppedByUser, StopRequest, stop_requests
from .last_rate import write_last_rate
from .loss_weights import loss_factors, mean_loss, valid_targets, weigh
from .optimizer import set_rate, take_step
from .parallel_loss import decoder_loss
from .pipelining import Pipeline
from .ranks import SINGLE, Ranks
from .rollback import go_back
from .schedule import Segment
from .state import TrainingState
from .telemetry import MetricsFile, round_figures
from .trackers import Trackers


# ----------------------------------------------------------------------------------------------- one phase
@dataclass(frozen=True)
class Steering:
    """What a controller wants after a measurement: a change of the batches, an end of training and why, or neither."""

    change: Callable[[], None] | None = None
    stop: str | None = None


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
    activation_checkpointing: ActivationCheckpointing = "none"
    """How the model was built; it tells how many sequences fit at once."""
    measure: Callable[[TrainingState], None] | None = None
    measure_every: int | None = None
    steer: Callable[[TrainingState, PhaseConfig, Segment], Steering] | None = None
    """Asked after each measurement within a phase and at its end."""
    begin: Callable[[TrainingState, PhaseConfig], None] | None = None
    """Turns the batches to a phase that begins, or goes on."""
    branches: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """By phase, the tokens of the run at which other phases branch from it: checkpoints are written there, and kept."""
    trackers: Trackers | None = None
    embeddings_first: int = 0
    """For so many tokens of the run only the rows of tokens learn."""
    first_new_id: int | None = None
    """Where an extended tokenizer's new tokens begin: their loss is told apart."""
    ignored: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Ids of tokens that the loss leaves out, by phase."""


def run_phase(state: TrainingState, phase: PhaseConfig, segment: Segment, loop: Loop, fingerprint: str) -> None:
    """Takes the state through the rest of a phase and leaves `<out>/<phase>/model` and a last checkpoint.

    Raises:
        StoppedByUser: SIGINT, SIGTERM or SIGUSR1; the step was finished and a checkpoint written.
        AuroraError: steps are bad again and again (nothing is written), the disk is full, or a controller ended
            training (a checkpoint was written).
    """
    if state.phase != phase.name:
        state.begin(phase.name)
    if state.ranks.is_main:
        mark_phase(loop.out, phase.name, fingerprint)
    state.model.train()
    sizes = phase.step_sizes
    with (
        stop_requests() as stop,
        CheckpointWriter(state.ranks, loop.checkpoint.asynchronous) as state.writer,
        loop.progress.task(phase.name, total=phase.step_tokens - sizes.tokens(state.phase_step), unit="tokens") as task,
    ):
        while state.phase_step < phase.steps:
            if loop.begin is not None:
                loop.begin(state, phase)
            sequences = [sizes.size(step) // phase.sequence_length for step in range(state.phase_step, phase.steps)]
            with Feed(state.batches, sequences) as feed:
                goes_on = _run_steps(state, phase, segment, loop, fingerprint, feed, stop, task)
            if not goes_on:
                before = state.tokens
                go_back(state, phase, loop.out, loop.progress)
                if loop.trackers is not None:
                    loop.trackers.rewrite(state.ledger)
                task.advance(state.tokens - before)
                if state.phase != phase.name:
                    state.begin(phase.name)


def _run_steps(
    state: TrainingState,
    phase: PhaseConfig,
    segment: Segment,
    loop: Loop,
    fingerprint: str,
    feed: Feed,
    stop: StopRequest,
    task: Task,
) -> bool:
    """Step after step to the end of the phase; False where so many in a row were bad that training has to go back."""
    ranks = state.ranks
    track = loop.trackers.row if loop.trackers is not None else None
    metrics = MetricsFile(loop.out / "metrics.jsonl", writes=ranks.is_main, track=track)
    device = next(state.model.parameters()).device
    queued: _Step | None = None
    began, waited, held_up = time.monotonic(), 0.0, state.writer.seconds
    while state.phase_step < phase.steps:
        # ---- loss and gradients
        batch = weigh(feed.next(), phase.loss, loop.ignored.get(phase.name))
        step_tokens = batch.targets.size
        micro_batch = _micro_batch(state.model, batch, loop, device, ranks)
        split = () if loop.first_new_id is None else (loop.first_new_id,)
        nll = accumulate_gradients(state.model, batch, micro_batch, loop.dtype, ranks, *split)
        nll, new_nll = (nll[:, 0], nll[:, 1]) if nll.dim() == 2 else (nll, None)
        embeddings_only = state.tokens < loop.embeddings_first
        if embeddings_only:
            keep_only_embeddings(state.model)
        loss = mean_loss(batch, nll)
        grad_norm = clip_gradients(list(state.model.parameters()), loop.clip, ranks)

        # ---- the step, which the device leaves out where it is bad
        rate = segment.rate(state.tokens + step_tokens) * state.rate_factor
        set_rate(state.optimizer, rate)
        bad = state.guardian.judge(loss, grad_norm)
        take_step(state.optimizer, bad)
        state.optimizer.zero_grad(set_to_none=True)

        # ---- counts; the figures of the step before, which the device has ready by now
        ended = time.monotonic()
        state.count(tokens_by_domain(batch), ended - began)
        if embeddings_only and state.tokens >= loop.embeddings_first:
            state.guardian.forget()  # from here on norms are of all gradients
        step = _Step(state, batch, rate, ended - began, feed.waited_seconds - waited, loss, grad_norm, bad, nll)
        if new_nll is not None and loop.first_new_id is not None:
            step.tell_new_apart(new_nll.sum(), loop.first_new_id)
        if state.writer.seconds > held_up:
            step.row["checkpoint_seconds"] = round_figures(state.writer.seconds - held_up)
        began, waited, held_up = ended, feed.waited_seconds, state.writer.seconds
        if queued is not None:
            _note(queued, state, metrics)
        last = state.phase_step == phase.steps
        measures = loop.measure and (last or _is_due(state.tokens, step_tokens, loop.measure_every))
        branches = loop.branches.get(phase.name, ())
        due = _is_due(state.tokens, step_tokens, loop.checkpoint.every)
        due = due or any(0 <= state.tokens - tokens < step_tokens for tokens in branches)
        stops = ranks.any(stop.asked)
        state.writer.check()
        state.meter.sample()
        queued = step
        if measures or last or due or stops:
            _note(step, state, metrics)
            queued = None
        task.advance(step_tokens, note=_note_of(state, rate))
        if len(state.bad_steps) >= state.guardian.config.patience:
            return False

        # ---- ledger, end of the phase, checkpoint (none to go back to while steps are bad)
        steering = Steering()
        if measures and loop.measure:
            loop.measure(state)
            if loop.steer is not None:
                steering = loop.steer(state, phase, segment)
            if steering.change is not None:
                feed.redirect(steering.change)
        if last:
            export_model(state.model, loop.out / phase.name / "model", loop.tokenizer, loop.eod_id, ranks, rate)
            state.take_energy()
            state.finished.append(_phase_row(state, phase, state.last_loss, rate))
            state.bad_steps = []
        if last or stops or steering.stop or (due and not state.bad_steps):
            if not last:
                state.take_energy()
            state.metrics_position = metrics.position
            waits = last or stops or steering.stop is not None
            saved = state.save(loop.out, fingerprint, loop.checkpoint, feed.state, branches, wait=waits)
            if steering.stop is not None:
                raise AuroraError(f"phase {phase.name}, step {state.step}: {steering.stop} (checkpoint: {saved})")
            if stops:
                scheduled = ranks.any(stop.exit_code != 0)  # the signal may have reached one of them
                raise StoppedByUser(
                    f"stopped in phase {phase.name} at step {state.step} ({state.tokens} tokens); checkpoint "
                    f"{saved} written; run the same command again to resume",
                    EXIT_STOPPED_BY_SCHEDULER if scheduled else 0,
                )
        if queued is None:  # what the ledger and the disk took is not the next step's
            began = time.monotonic()
    return True


def _micro_batch(model: Decoder | Pipeline, batch: Batch, loop: Loop, device: torch.device, ranks: Ranks) -> int:
    """Sequences at a time, of those of a step that this rank has."""
    count, length = batch.targets.shape
    sequences = count // ranks.degree("data")
    micro_batch = loop.micro_batch or auto_micro_batch(
        model.config, sequences, length, device, loop.dtype, loop.activation_checkpointing
    )
    return pipelined_micro_batch(micro_batch, sequences, ranks.degree("pipeline"))


class _Step:
    """A step whose figures are still on their way from the device."""

    def __init__(
        self,
        state: TrainingState,
        batch: Batch,
        rate: float,
        seconds: float,
        waited_seconds: float,
        loss: Tensor,
        grad_norm: Tensor,
        bad: Tensor,
        nll: Tensor,
    ) -> None:
        self.batch = batch
        self._new: tuple[Tensor, int] | None = None
        self.row = {
            "kind": "step",
            "phase": state.phase,
            "step": state.step,
            "tokens": state.tokens,
            "lr": rate,
            "tokens_by_domain": dict(state.tokens_by_domain),
            "tokens_per_second": round_figures(batch.targets.size / seconds),
            "data_wait": round_figures(waited_seconds / seconds),
            "seconds": round_figures(state.seconds),
        }
        if state.joules:  # up to the last checkpoint
            self.row["kwh"] = round_figures(sum(state.joules.values()) / 3.6e6)
        figures = torch.cat([torch.stack([one.detach().double() for one in (loss, grad_norm, bad)]), nll])
        self._host, self._copied = figures, None
        if figures.device.type == "cuda":
            self._host = torch.empty(figures.shape, dtype=figures.dtype, pin_memory=True)
            self._host.copy_(figures, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()

    def tell_new_apart(self, nll: Tensor, first_new_id: int) -> None:
        """Notes the summed loss of the targets that are new tokens; read with the row, one step later."""
        count = int((self.batch.targets >= first_new_id).sum())
        self._new = nll.detach(), count

    def losses_apart(self, nll: float) -> dict[str, float]:
        """Mean loss of new and of old tokens, of those that there are; `nll`: the sum of all. After `figures`."""
        if self._new is None:
            return {}
        new_nll, new_count = float(self._new[0]), self._new[1]
        old_count = int(valid_targets(self.batch).sum()) - new_count
        found = {"loss_new_tokens": (new_nll, new_count), "loss_old_tokens": (nll - new_nll, old_count)}
        return {name: total / count for name, (total, count) in found.items() if count}

    def figures(self) -> tuple[float, float, bool, list[float]]:
        """Loss, gradient norm, whether the step was left out, and the losses of the sequences; waits for them."""
        if self._copied is not None:
            self._copied.synchronize()
        loss, grad_norm, bad, *nll = self._host.tolist()
        return loss, grad_norm, bool(bad), nll


def _note(step: _Step, state: TrainingState, metrics: MetricsFile) -> None:
    """Writes a step's row; keeps account of bad steps in a row."""
    loss, grad_norm, bad, nll = step.figures()
    if bad:
        reason = reason_of(loss, grad_norm)
        metrics.write({**step.row, "kind": "skipped", "reason": reason})
        row = {"step": step.row["step"], "reason": reason, "documents": documents_of(step.batch, nll)}
        state.bad_steps.append(row)
        return
    state.bad_steps.clear()
    state.last_loss = loss
    losses = {"loss_by_domain": loss_by_domain(step.batch, nll)} | step.losses_apart(sum(nll))
    metrics.write({**step.row, "loss": loss, "grad_norm": grad_norm, **losses})


def export_model(
    model: Decoder | Pipeline,
    folder: Path,
    tokenizer: Path | None,
    eod_id: int,
    ranks: Ranks = SINGLE,
    last_rate: float | None = None,
) -> None:
    """Writes a model in the Hugging Face layout, with the learning rate its training ended with where that is known;
    it takes the place of an older one in a single move.

    Of a model over many ranks the main one holds a tensor at a time.
    """
    if isinstance(model, Decoder) and ranks.alone:
        with atomic_folder(folder) as temporary:
            save_model(model, temporary, tokenizer, eod_id=eod_id)
            write_last_rate(temporary, last_rate)
        return
    tensors = gather_tensors(model, ranks)
    with ranks.agreed():
        try:
            if ranks.is_main:
                with atomic_folder(folder) as temporary:
                    write_model(model.config, tensors, temporary, tokenizer, eod_id=eod_id)
                    write_last_rate(temporary, last_rate)
        finally:
            # All go through to the end together, also where the main rank could not write.
            for _ in tensors:
                pass


def _is_due(tokens: int, step_tokens: int, every: int | None) -> bool:
    """Whether the step that ended at `tokens` crossed a multiple of `every`."""
    return every is not None and tokens // every > (tokens - step_tokens) // every


def _note_of(state: TrainingState, rate: float) -> str:
    loss = "" if state.last_loss is None else f"loss {state.last_loss:.3f} · "
    return f"{loss}lr {rate:.2g}"


def _phase_row(state: TrainingState, phase: PhaseConfig, final_loss: float | None, final_lr: float) -> dict[str, Any]:
    """The phase's entry in `train.json`. `tokens_asked` differs from `tokens` where steps had to be whole."""
    tokens = phase.step_tokens
    return {
        "name": phase.name,
        "tokens": tokens,
        "tokens_asked": phase.tokens,
        "steps": phase.steps,
        "seconds": round(state.phase_seconds, 3),
        "start_tokens": state.tokens - tokens,
        "sequence_length": phase.sequence_length,
        "tokens_per_step": phase.tokens_per_step,
        **({"first_tokens_per_step": phase.ramp.start} if phase.ramp else {}),
        "mixture": phase.mixture,
        "mixtures": [entry for entry in getattr(state.batches, "history", []) if entry["phase"] == phase.name],
        **({"began_at": state.began_at} if phase.from_ else {}),
        "tokens_by_domain": dict(state.phase_tokens_by_domain),
        "epochs_by_domain": getattr(state.batches, "epochs", {}),
        "final_loss": final_loss,
        "final_lr": final_lr,
        "energy": describe_energy(state.phase_joules, sum(state.phase_tokens_by_domain.values())),
    }


# ----------------------------------------------------------------------------------------------- one step
def accumulate_gradients(
    model: Decoder | Pipeline,
    batch: Batch,
    micro_batch: int,
    dtype: torch.dtype,
    ranks: Ranks = SINGLE,
    first_new_id: int | None = None,
) -> Tensor:
    """Gradients of the weighted mean loss over all valid tokens of `batch`, a few sequences at a time.

    Every micro batch is scaled by the weights of the whole step's valid tokens, so how a step is split does not weigh
    it differently. All ranks bring the same batch, and each works on its own part. Returns the negative log-likelihood
    of each sequence in nats, float64[B], on the device, the same on all ranks. With `first_new_id` it is [B, 2] and the
    second column that of the targets from this id on; not where the model is a pipeline.
    """
    device = next(model.parameters()).device
    own = ranks.own_sequences(len(batch.domains))
    scale = loss_factors(batch)
    if isinstance(scale, np.ndarray):
        scale = torch.from_numpy(scale[own]).to(device, torch.float32, non_blocking=True)
    arrays = tuple(
        torch.from_numpy(array[own]).to(device, non_blocking=True)
        for array in (batch.input_ids, batch.targets, batch.positions, batch.document_ids)
    )
    backward = model.backward if isinstance(model, Pipeline) else partial(_backward, model, first_new_id)
    nll = backward(arrays, micro_batch, scale, dtype)
    if ranks.alone:
        return nll
    nll_of_sequences = torch.zeros((len(batch.domains), *nll.shape[1:]), dtype=torch.float64, device=device)
    nll_of_sequences[own] = nll
    return ranks.sum(nll_of_sequences, "data", "pipeline")


def _backward(
    model: Decoder,
    first_new_id: int | None,
    arrays: tuple[Tensor, ...],
    micro_batch: int,
    scale: float | Tensor,
    dtype: torch.dtype,
) -> Tensor:
    """Adds the gradients of `scale` (one, or one a sequence) times the summed loss of these sequences; returns the nll
    of each (B,), float64. With `first_new_id` (B, 2): that of the targets from this id on beside it.
    """
    nll = []
    parts = zip(*(array.split(micro_batch) for array in arrays), strict=True)
    scales = scale.split(micro_batch) if isinstance(scale, Tensor) else repeat(scale)
    for (ids, targets, positions, document_ids), factor in zip(parts, scales, strict=False):
        with autocast(ids.device, dtype):
            hidden = model(ids, positions=positions, document_ids=document_ids)
            loss, token_nll = decoder_loss(model, hidden, targets, factor)
        loss.backward()
        sums = token_nll.sum(dim=1, dtype=torch.float64)
        if first_new_id is not None:
            new = token_nll.where(targets >= first_new_id, 0.0).sum(dim=1, dtype=torch.float64)
            sums = torch.stack([sums, new], dim=1)
        nll.append(sums)
    return torch.cat(nll)


def loss_by_domain(batch: Batch, nll_of_sequences: list[float]) -> dict[str, float]:
    """Mean loss in nats per valid token of each domain that has any."""
    nll_sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    for domain, nll, count in zip(batch.domains, nll_of_sequences, valid_targets(batch).tolist(), strict=True):
        nll_sums[domain] = nll_sums.get(domain, 0.0) + nll
        counts[domain] = counts.get(domain, 0) + count
    return {domain: nll_sums[domain] / count for domain, count in counts.items() if count}


def tokens_by_domain(batch: Batch) -> dict[str, int]:
    """Tokens dealt to each domain."""
    tokens: dict[str, int] = {}
    for domain in batch.domains:
        tokens[domain] = tokens.get(domain, 0) + batch.targets.shape[1]
    return tokens
