"""The loss where the vocabulary is split over tensor ranks: each scores its own tokens, sums are shared."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.placement_types import Partial

from aurora_m.model import IGNORED, Decoder, chunked_loss, scaled_sum, token_factors

_CHUNK_TOKENS = 1024


def decoder_loss(model: Decoder, hidden: Tensor, targets: Tensor, scale: float | Tensor) -> tuple[Tensor, Tensor]:
    """`chunked_loss` of a decoder's own hidden states (B, L, H) and targets (B, L), split or not.

    Where tensors are split `hidden` is what the split decoder returned, of all tokens or of its own; `targets` are all.
    Returns the scalar loss and nll (B, L), both alike on all tensor ranks.
    """
    weight = (model.embed_tokens if model.head is None else model.head).weight
    if not isinstance(weight, DTensor):
        return chunked_loss(hidden, model.head_weight, targets, scale)
    mesh = weight.device_mesh
    if not isinstance(hidden, DTensor):  # from a pipeline stage, which hands out local tensors
        layout = Replicate() if hidden.size(1) == targets.size(1) else Shard(1)
        hidden = DTensor.from_local(hidden, mesh, [layout], run_check=False)
    whole = hidden.redistribute(placements=[Replicate()])
    first = -(-weight.size(0) // mesh.size()) * mesh.get_local_rank()
    rows = weight.to_local()
    rows = rows[: max(0, model.config.vocab_size - first)]  # padding is never scored
    # Each rank's gradient is what its own part of the vocabulary asks of the hidden states.
    inputs = whole.to_local(grad_placements=[Partial()])
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    with torch.autocast(kind, enabled=False):
        return _SplitLoss.apply(inputs, rows, targets, scale, first, dtype, mesh.get_group())  # type: ignore[return-value]


class _SplitLoss(torch.autograd.Function):
    """As `chunked_loss`: gradients are computed in the forward pass, while a chunk's logits are at hand."""

    @staticmethod
    def forward(ctx: Any, hidden, rows, targets, scale, first, dtype, group):
        wanted = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        inputs, matrix, flat = hidden.reshape(-1, hidden.size(-1)).to(dtype), rows.to(dtype), targets.reshape(-1)
        token_nll = torch.zeros(flat.shape, dtype=torch.float32, device=hidden.device)
        d_inputs = torch.zeros_like(inputs) if wanted else None
        d_rows = torch.zeros(rows.shape, dtype=torch.float32, device=rows.device) if wanted else None
        scales = token_factors(scale, targets)
        for start in range(0, flat.numel(), _CHUNK_TOKENS):
            picked = slice(start, start + _CHUNK_TOKENS)
            x = inputs[picked]
            own = scales[picked] if isinstance(scales, Tensor) else scales
            token_nll[picked], d_logits, factors = _score(x @ matrix.T, flat[picked], first, own, group)
            if d_inputs is not None and d_rows is not None:
                d_inputs[picked] = (d_logits.to(dtype) @ matrix) * factors.to(dtype)
                d_rows += (d_logits.to(dtype).T @ (x * factors.to(dtype))).float()
        ctx.d_inputs = None if d_inputs is None else d_inputs.view(hidden.shape).to(hidden.dtype)
        ctx.d_rows = d_rows
        token_nll = token_nll.view(targets.shape)
        ctx.mark_non_differentiable(token_nll)
        return scaled_sum(scale, token_nll), token_nll

    @staticmethod
    def backward(ctx: Any, *grad_outputs):
        d_inputs, d_rows = ctx.d_inputs.mul_(grad_outputs[0]), ctx.d_rows.mul_(grad_outputs[0])
        ctx.d_inputs = ctx.d_rows = None
        return d_inputs, d_rows, None, None, None, None, None


def _score(
    logits: Tensor, targets: Tensor, first: int, scale: float | Tensor, group: dist.ProcessGroup
) -> tuple[Tensor, Tensor, Tensor]:
    """nll (n), gradient of the local logits (n, v) up to a factor per token, and those factors (n, 1)."""
    logits = logits.float()
    valid = targets != IGNORED
    own = (targets >= first) & (targets < first + logits.size(1))
    places = (targets - first).where(own, 0).unsqueeze(1)
    highest = logits.amax(dim=1, keepdim=True)
    dist.all_reduce(highest, dist.ReduceOp.MAX, group)
    target_logits = logits.gather(1, places).where(own.unsqueeze(1), 0.0)
    powers = logits.sub_(highest).exp_()
    sums = torch.cat([powers.sum(dim=1, keepdim=True), target_logits], dim=1)
    dist.all_reduce(sums, dist.ReduceOp.SUM, group)
    totals = sums[:, :1]
    token_nll = (totals.log() + highest - sums[:, 1:]).squeeze(1).where(valid, 0.0)
    d_logits = powers.scatter_add_(1, places, -(totals * own.unsqueeze(1)))
    return token_nll, d_logits, scale / totals * valid.unsqueeze(1)
