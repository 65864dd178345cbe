"""Cross-entropy over a vocabulary too large for its logits to be held: loss and gradients, chunk by chunk."""

from typing import Any

import torch
from torch import Tensor

from .linear import product, weight_gradient

IGNORED = -100

_CPU_CHUNK_BYTES, _CPU_MOST_BYTES = 8 * 2**20, 128 * 2**20
_CPU_ROWS, _CPU_LEAST_ROWS = 64, 512


def chunked_loss(
    hidden: Tensor, weight: Tensor, targets: Tensor, scale: float | Tensor = 1.0, chunk_tokens: int = 1024
) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood of `targets` under `softmax(hidden @ weight.T)`, and its gradients, in bounded memory.

    Logits exist for `chunk_tokens` tokens at a time, in the dtype matrix products run in (autocast's where it is on);
    the softmax is float32, and so is the accumulated gradient of `weight`. The gradients are computed in the forward
    pass, while a chunk's logits are at hand; backward only hands them out. Where none is wanted, none is computed.

    Args:
        hidden: (B, L, H) hidden states after the final norm.
        weight: (V, H) output matrix.
        targets: (B, L) int64 token ids; IGNORED (-100) is not scored.
        scale: factor of the loss, e.g. 1 / (valid tokens of the whole step); or one for each sequence, (B,) float32.

    Returns:
        The scalar sum of `scale * nll` (float32, differentiable), and nll (B, L) float32, detached, 0 where ignored.
    """
    return _outside_of_graphs(hidden, weight, targets, scale, chunk_tokens)


def _chunked_loss(
    hidden: Tensor, weight: Tensor, targets: Tensor, scale: float | Tensor, chunk_tokens: int
) -> tuple[Tensor, Tensor]:
    wants_gradients = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    with torch.autocast(kind, enabled=False):
        if wants_gradients:
            return _ChunkedLoss.apply(hidden, weight, targets, scale, chunk_tokens, dtype)  # type: ignore[return-value]
        token_nll, _, _ = _run_chunks(hidden, weight, targets, scale, chunk_tokens, dtype, (False, False))
        return scaled_sum(scale, token_nll), token_nll


def scaled_sum(scale: float | Tensor, token_nll: Tensor) -> Tensor:
    """The sum of nll (B, L), multiplied with `scale` or with each sequence's (B,)."""
    return (scale * token_nll.sum(dim=1)).sum() if isinstance(scale, Tensor) else scale * token_nll.sum()


def token_factors(scale: float | Tensor, targets: Tensor) -> float | Tensor:
    """What each token's nll is multiplied with: (B * L, 1), or the number that it is for all."""
    return scale.repeat_interleave(targets.size(1)).unsqueeze(1) if isinstance(scale, Tensor) else scale


# How many chunks there are depends on the data, so torch.compile leaves the loss as it is.
_outside_of_graphs: Any = torch.compiler.disable(_chunked_loss)


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden, weight, targets, scale, chunk_tokens, dtype):
        token_nll, ctx.d_hidden, ctx.d_weight = _run_chunks(
            hidden, weight, targets, scale, chunk_tokens, dtype, ctx.needs_input_grad[:2]
        )
        ctx.mark_non_differentiable(token_nll)
        return scaled_sum(scale, token_nll), token_nll

    @staticmethod
    def backward(ctx: Any, *grad_outputs):
        d_loss = grad_outputs[0]
        if ctx.d_hidden is None and ctx.d_weight is None:
            raise RuntimeError(
                "backward through chunked_loss a second time: its gradients were handed out the first time"
            )
        # Scaled in place: a second copy of d_weight would be the largest tensor of the step.
        d_hidden, d_weight = (d if d is None else d.mul_(d_loss) for d in (ctx.d_hidden, ctx.d_weight))
        ctx.d_hidden = ctx.d_weight = None
        return d_hidden, d_weight, None, None, None, None


def _run_chunks(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    scale: float | Tensor,
    chunk_tokens: int,
    dtype: torch.dtype,
    wanted: tuple[bool, bool],
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Per-token nll (B, L) and, where wanted, the gradients of hidden (its dtype) and weight (float32)."""
    rows = hidden.reshape(-1, hidden.size(-1)).to(dtype)
    matrix = weight.to(dtype)
    flat_targets = targets.reshape(-1)
    token_nll = torch.zeros(flat_targets.shape, dtype=torch.float32, device=hidden.device)
    d_rows = torch.zeros_like(rows) if wanted[0] else None
    d_weight: Tensor | None = None
    scales = token_factors(scale, targets)
    for picked in _chunks(flat_targets, _fitting_chunk(chunk_tokens, weight)):
        inputs, target_ids = rows[picked], flat_targets[picked]
        valid = target_ids != IGNORED
        target_ids = target_ids.where(valid, 0).unsqueeze(1)
        logits = product(inputs, matrix)
        target_logits = logits.gather(1, target_ids).float()
        # exp(logit - highest) and its sum: the softmax is left undivided, the division done on the narrow side below.
        highest = logits.amax(dim=1, keepdim=True).float()
        powers = logits.float().sub_(highest).exp_()
        totals = powers.sum(dim=1, keepdim=True)
        token_nll[picked] = (totals.log() + highest - target_logits).squeeze(1).where(valid, 0.0)
        if not any(wanted):
            continue
        d_logits = powers.scatter_add_(1, target_ids, -totals).to(dtype)
        own = scales[picked] if isinstance(scales, Tensor) else scales
        factors = (own / totals * valid.unsqueeze(1)).to(dtype)
        if d_rows is not None:
            d_rows[picked] = product(d_logits, matrix.T).mul_(factors)
        if wanted[1]:
            part = weight_gradient(d_logits, inputs * factors).float()
            d_weight = part if d_weight is None else d_weight.add_(part)
    if wanted[1] and d_weight is None:
        d_weight = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device)
    d_hidden = None if d_rows is None else d_rows.view(hidden.shape).to(hidden.dtype)
    return token_nll.view(targets.shape), d_hidden, d_weight


def _fitting_chunk(chunk_tokens: int, weight: Tensor) -> int:
    """On the CPU, few enough tokens that a chunk's logits stay in cache and in memory the allocator keeps.

    Larger blocks are given back to the system and their pages cleared anew for each chunk. But a chunk of few tokens
    adds to the whole gradient of the weight for little: with 49,152 tokens and a width of 640, 64 at a time take 2.2
    times as long as 512. So there are at least 512, unless their logits would be too large to hold.
    """
    if weight.device.type != "cpu":
        return chunk_tokens
    row_bytes = 4 * weight.size(0)
    rows = max(_CPU_CHUNK_BYTES // row_bytes, min(_CPU_LEAST_ROWS, _CPU_MOST_BYTES // row_bytes), _CPU_ROWS)
    return min(chunk_tokens, rows)


def _chunks(targets: Tensor, chunk_tokens: int) -> list[slice] | list[Tensor]:
    """Which rows are computed together. On the CPU ignored rows are skipped; elsewhere asking would synchronise."""
    if targets.device.type == "cpu":
        scored = targets != IGNORED
        valid = scored.nonzero().squeeze(1)
        if valid.numel() < targets.numel():
            # A few ignored rows fill up the last chunk: oneDNN keeps what it compiled for every shape it meets, and
            # batches that each score another number of tokens would have it keep a gigabyte.
            filler = (~scored).nonzero().squeeze(1)[: -valid.numel() % _CPU_ROWS]
            return list(torch.cat([valid, filler]).split(chunk_tokens))
    return [slice(start, start + chunk_tokens) for start in range(0, targets.numel(), chunk_tokens)]
