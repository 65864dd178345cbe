"""A training step of one rank on fake tensors: the real code laid over a mesh, with sizes but no numbers.

PyTorch's fake process group stands for the other ranks: collectives are issued, and nothing is sent.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._pytree import tree_leaves

from aurora_m.model import Decoder, ModelConfig
from aurora_m.model import decoder as decoder_module
from aurora_m.model import loss as loss_module
from aurora_m.tokens import Batch
from aurora_m.workspace import AuroraError

from .activation_checkpointing import checkpoint_activations
from .config import ActivationCheckpointing, OptimizerConfig, ParallelConfig
from .gradients import clip_gradients, local_tensor
from .optimizer import build_optimizer, take_step
from .parallel import DIMENSIONS, build_mesh, parallelize
from .ranks import SINGLE, Ranks
from .tally import Tally
from .trainer import accumulate_gradients


@dataclass(frozen=True)
class Layout:
    """What one rank is to rehearse: a model of `ranks` ranks in (pipeline, data, tensor) degrees of `parallel`."""

    model: ModelConfig
    parallel: ParallelConfig
    ranks: int
    sequence_length: int
    micro_batch: int
    micro_batches: int  # of one data rank in one step
    dtype: torch.dtype
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    activation_checkpointing: ActivationCheckpointing = "none"
    on_cpu: bool = False  # the loss takes smaller pieces there

    @property
    def degrees(self) -> tuple[int, int, int]:
        return self.parallel.degrees(self.ranks)


@dataclass(frozen=True)
class Usage:
    """What one rank holds and sends in a step. Bytes; the peak includes all kinds.

    `activations` is what else lives at the peak: what the backward pass needs, gathered weights, what is being
    computed. `sent` is by dimension of the mesh.
    """

    weights: int
    gradients: int
    optimizer: int
    peak: int
    sent: dict[str, int]

    @property
    def activations(self) -> int:
        return max(0, self.peak - self.weights - self.gradients - self.optimizer)


def rehearse(layout: Layout, rank: int) -> Usage:
    """What rank `rank` of a layout holds at its peak and sends in a whole step.

    Once per process: PyTorch keeps what it knows of a mesh. As many micro batches are run as it takes for memory to
    reach its peak and for each further one to send what the last did: two, and in a pipeline of p ranks p, then p + 1.

    Raises:
        AuroraError: the process is part of a real job.
    """
    with _fake_job(layout, rank) as (mesh, ranks), ExitStack() as stack:
        with torch.device("meta"):
            model: Any = Decoder(layout.model)
        checkpoint_activations(model.layers, layout.activation_checkpointing)
        if mesh is not None:
            model = parallelize(model, mesh, layout.parallel, dtype=layout.dtype)
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        tally = stack.enter_context(_FakeTally())
        model.to_empty(device="cpu")
        optimizer = build_optimizer(model, layout.optimizer)
        states = [one for state in optimizer.state.values() for one in state.values()]
        gradients, peak, sent = _step(layout, model, optimizer, ranks, tally)
        groups = {mesh[name].get_group().group_name: name for name in DIMENSIONS} if mesh is not None else {}
        by_dimension: Counter[str] = Counter()
        for group, volume in sent.items():
            # Only a tied embedding's first and last rank have a group of their own.
            by_dimension[groups.get(group, "pipeline")] += volume
        return Usage(_bytes(model.parameters()), gradients, _bytes(states), peak, dict(by_dimension))


def _step(
    layout: Layout, model: Any, optimizer: torch.optim.Optimizer, ranks: Ranks, tally: Tally
) -> tuple[int, int, Counter[str]]:
    """The real loop's step: bytes of its gradients, of its peak, and by group those sent for all micro batches.

    Gradients are accumulated twice: DTensor asks for the shapes of whole tensors when it first meets an operation,
    which would count as memory. So the peak is taken before the optimizer's step, too, which works in place.
    """
    pipeline, wanted = layout.degrees[0], layout.micro_batches
    counts = [wanted, wanted] if wanted <= pipeline else [pipeline, 1 if pipeline == 1 else pipeline + 1]
    sent = []
    for count in counts:
        if pipeline > 1 or wanted == 1:
            optimizer.zero_grad(set_to_none=True)  # its gradients are of all micro batches at once
        tally.sent_bytes.clear()
        tally.peak_bytes = tally.live_bytes
        accumulate_gradients(model, dealt_batch(layout, count, ranks), layout.micro_batch, layout.dtype, ranks)
        sent.append(tally.sent_bytes.copy())
    each = Counter({group: volume - (sent[0][group] if pipeline > 1 else 0) for group, volume in sent[-1].items()})
    tally.sent_bytes.clear()
    parameters = list(model.parameters())
    clip_gradients(parameters, layout.optimizer.clip, ranks)
    gradients = _bytes([one.grad for one in parameters if one.grad is not None])
    peak = tally.peak_bytes
    take_step(optimizer, torch.zeros(()))
    optimizer.zero_grad(set_to_none=True)
    totals = tally.sent_bytes.copy()
    for group, volume in sent[-1].items():
        totals[group] += volume + (wanted - counts[-1]) * each[group]
    return gradients, peak, totals


def dealt_batch(layout: Layout, micro_batches: int, ranks: Ranks) -> Batch:
    """So many micro batches of each data rank, all tokens 0."""
    sequences = micro_batches * layout.micro_batch * ranks.degree("data")
    zeros = np.zeros((sequences, layout.sequence_length), dtype=np.int64)
    numbers = zeros.astype(np.int32)
    return Batch(zeros, zeros, numbers, numbers, [""] * sequences, [[]] * sequences)


def _bytes(tensors: Iterable[Any]) -> int:
    return sum(local_tensor(one).numel() * one.element_size() for one in tensors)


@contextmanager
def _fake_job(layout: Layout, rank: int) -> Iterator[tuple[Any, Ranks]]:
    """A process group of so many ranks, and its mesh; none for a single one."""
    with ExitStack() as stack:
        if not layout.on_cpu:
            # On accelerators the loss takes larger pieces, and attention is PyTorch's.
            stack.enter_context(mock.patch.object(loss_module, "_CPU_CHUNK_BYTES", 2**62))
            stack.enter_context(mock.patch.object(decoder_module, "_kernels_take", lambda _: False))
        if layout.ranks == 1:
            yield None, SINGLE
            return
        if dist.is_initialized():
            raise AuroraError("a plan is made by one process: run it without torchrun")
        from torch.testing._internal.distributed.fake_pg import FakeStore

        dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=layout.ranks)
        try:
            mesh = build_mesh(layout.parallel, "cpu", layout.ranks)
            yield mesh, Ranks(mesh)
        finally:
            dist.destroy_process_group()


class _FakeTally(Tally):
    """Counts fake tensors; what concerns real ones alone (places in the mesh, targets) is really computed."""

    def call(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        if any(isinstance(one, FakeTensor) for one in tensors):
            if func is torch.ops.aten._local_scalar_dense.default:
                return 1  # PyTorch's pipeline asks the others whether shapes are known; they are
            return func(*args, **kwargs)
        if not tensors or any(one.is_meta for one in tensors) or "c10d" in func.namespace:
            return func(*args, **kwargs)
        with unset_fake_temporarily():
            return func(*args, **kwargs)
