"""A decoder cut into stages of successive layers, run by PyTorch's 1F1B and interleaved schedules.

A stage is a Decoder whose other parts let their input through, so that its forward pass and the names of its
parameters stay the decoder's own. Stage i of n is held by pipeline rank i mod (pipeline degree).
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleInterleaved1F1B

from aurora_m.model import Decoder

from .config import ParallelConfig
from .device import autocast
from .gradients import local_tensor, settle_gradients
from .parallel_loss import decoder_loss


class _PassThrough(nn.Module):
    """Stands where another stage has a module."""

    def forward(self, x: Tensor, *_: Any) -> Tensor:
        return x


class _Nothing(nn.Module):
    """Stands for the position embedding, which is added on the first stage."""

    def forward(self, *_: Any) -> float:
        return 0.0


class _CarriedHead(nn.Module):
    """The last stage's copy of a tied embedding: read by the loss as the head, passed by in the forward pass."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad)

    def forward(self, x: Tensor) -> Tensor:
        return x


def cut(model: Decoder, stage: int, stages: int) -> Decoder:
    """Stage `stage` of `stages` of a decoder, which shares its parameters with the whole (a tied head is copied)."""
    with torch.device("meta"):
        part = Decoder(model.config)
    part.attention_kernel = model.attention_kernel
    first, last = stage == 0, stage == stages - 1
    start, end = (len(model.layers) * number // stages for number in (stage, stage + 1))
    for name, module in model.named_children():
        setattr(part, name, module if first else _PassThrough())
    part.layers = nn.ModuleList(
        layer if start <= index < end else _PassThrough() for index, layer in enumerate(model.layers)
    )
    if not first and model.embed_positions is not None:
        part.embed_positions = _Nothing()  # type: ignore[assignment]
    part.final_norm = model.final_norm if last else _PassThrough()
    part.head = model.head if last else None
    if last and not first and model.head is None:
        part.embed_tokens = _CarriedHead(model.embed_tokens.weight)  # type: ignore[assignment]
    return part


class Pipeline(nn.Module):
    """This rank's stages of a decoder. Its parameters have the decoder's names, and no two stages the same one."""

    def __init__(self, parts: dict[int, Decoder], mesh: DeviceMesh, parallel: ParallelConfig) -> None:
        super().__init__()
        self.config = next(iter(parts.values())).config
        self.parts = nn.ModuleList(parts.values())
        self._numbers = list(parts)
        self._stages = parallel.pipeline * parallel.stages_per_rank
        self._mesh, self._parallel = mesh, parallel
        self._ends = self._join_ends()
        self._mark_copy()
        self._schedule: tuple[tuple[int, ...], Any] | None = None
        self._scale: float | Tensor = 1.0
        self._nll: list[Tensor] = []

    @property
    def holds_last(self) -> bool:
        """Whether this rank computes the loss."""
        return self._numbers[-1] == self._stages - 1

    @property
    def _last(self) -> Decoder:
        return self.parts[-1]  # type: ignore[return-value]

    def named_parameters(self, *arguments: Any, **settings: Any):  # type: ignore[override]
        """As of the whole decoder: names carry no number of the stage."""
        for part in self.parts:
            yield from part.named_parameters(*arguments, **settings)

    def state_dict(self, *arguments: Any, **settings: Any) -> dict[str, Any]:
        """As of the whole decoder."""
        return {name: value for part in self.parts for name, value in part.state_dict(*arguments, **settings).items()}

    def to_empty(self, *, device: Any, recurse: bool = True) -> "Pipeline":
        """From the meta device to a real one; the parameters are new ones then."""
        super().to_empty(device=device, recurse=recurse)
        self._mark_copy()
        return self

    def _mark_copy(self) -> None:
        """A tied head is counted, and written out, where the embedding is."""
        if self.holds_last and isinstance(self._last.embed_tokens, _CarriedHead):
            for parameter in self._last.embed_tokens.parameters():
                parameter.is_copy = True  # type: ignore[attr-defined]

    # ---- a step
    def backward(
        self, arrays: tuple[Tensor, ...], micro_batch: int, scale: float | Tensor, dtype: torch.dtype
    ) -> Tensor:
        """Adds the gradients of `scale` (one, or one a sequence) times the summed loss of these sequences; returns the
        nll of each (B,).

        The last rank knows it; the others return zeros.

        `arrays` are input ids, targets, positions and document numbers, each (B, L); `micro_batch` divides B.
        """
        ids, targets, positions, document_ids = arrays
        self._scale, self._nll = scale, []
        schedule = self._schedule_for(len(ids), micro_batch, ids.size(1))
        first = (ids,) if self._numbers[0] == 0 else ()
        target = {"target": targets} if self.holds_last else {}
        with autocast(ids.device, dtype):
            schedule.step(*first, positions=positions, document_ids=document_ids, return_outputs=False, **target)
        self._share_tied_gradient()
        return torch.cat(self._nll) if self.holds_last else torch.zeros(len(ids), dtype=torch.float64).to(ids.device)

    def score(self, ids: Tensor, targets: Tensor, positions: Tensor, document_ids: Tensor) -> Tensor:
        """nll (B, L) of each token, zeros but on the last rank; no gradients."""
        group, width = self._mesh["pipeline"].get_group(), self._mesh["pipeline"].size()
        x = ids
        for number, part in zip(self._numbers, self.parts, strict=True):
            if number > 0:
                x = self._empty_hidden(ids)
                dist.recv(x, group=group, group_src=(number - 1) % width)
            x = part(x, positions=positions, document_ids=document_ids)
            if number < self._stages - 1:
                dist.send(x.contiguous(), group=group, group_dst=(number + 1) % width)
        if not self.holds_last:
            return torch.zeros(targets.shape, device=targets.device)
        return decoder_loss(self._last, x, targets, 1.0)[1]

    def _loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        scale, first = self._scale, len(self._nll) * len(targets)  # micro batches come in their order
        own = scale[first : first + len(targets)] if isinstance(scale, Tensor) else scale
        loss, token_nll = decoder_loss(self._last, hidden, targets, own)
        self._nll.append(token_nll.sum(dim=1, dtype=torch.float64))
        return loss

    def _empty_hidden(self, ids: Tensor, device: torch.device | str | None = None) -> Tensor:
        """What goes between stages: float32 whatever matrix products run in, as the residual stream is."""
        split = self._mesh["tensor"].size() if self._parallel.sequence else 1
        shape = (ids.size(0), ids.size(1) // split, self.config.hidden_size)
        return torch.empty(shape, dtype=torch.float32, device=device or ids.device)

    def _schedule_for(self, sequences: int, micro_batch: int, length: int) -> Any:
        """PyTorch's schedule for these sizes; the last one is kept, as they change with the phase only."""
        key = (sequences, micro_batch, length)
        if self._schedule is not None and self._schedule[0] == key:
            return self._schedule[1]
        device = next(self.parameters()).device
        # Told the shapes, the stages need no trial run of model and loss to find them.
        ids = torch.empty((micro_batch, length), dtype=torch.int64, device="meta")
        hidden = self._empty_hidden(ids, "meta")
        stages = [
            PipelineStage(
                part,
                number,
                self._stages,
                device,
                input_args=(ids if number == 0 else hidden.requires_grad_(),),
                output_args=(hidden.requires_grad_(),),
                group=self._mesh["pipeline"].get_group(),
            )
            for number, part in zip(self._numbers, self.parts, strict=True)
        ]
        count = sequences // micro_batch
        if self._parallel.stages_per_rank > 1:
            schedule: Any = ScheduleInterleaved1F1B(stages, count, loss_fn=self._loss, scale_grads=False)  # type: ignore[arg-type]
        else:
            schedule = Schedule1F1B(stages[0], count, loss_fn=self._loss, scale_grads=False)
        self._schedule = (key, schedule)
        return schedule

    # ---- a tied embedding, which lies on the first and on the last rank
    def _join_ends(self) -> Any:
        """The group of the first and the last rank of this rank's pipeline, which all ranks must open together."""
        if not self.config.tied_embeddings:
            return None
        own = None
        for ranks in self._mesh.mesh.numpy().reshape(self._parallel.pipeline, -1).T.tolist():
            group = dist.new_group([ranks[0], ranks[-1]])
            if dist.get_rank() in (ranks[0], ranks[-1]):
                own = group
        return own

    def _share_tied_gradient(self) -> None:
        """Sums the gradients of embedding and head, so that both copies take the same step."""
        if self._ends is None:
            return
        end = self._last if self.holds_last else self.parts[0]
        weight: nn.Parameter = end.embed_tokens.weight  # type: ignore[assignment, union-attr]
        if not weight.requires_grad:
            return
        settle_gradients([weight])
        assert weight.grad is not None
        dist.all_reduce(local_tensor(weight.grad), group=self._ends)
