"""Attention on GPUs by PyTorch's FlexAttention: blocks of keys that no query of a block sees are never computed."""

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from .attention import Runs, attention_mask, runs_of_keys
from .config import ModelConfig

BLOCK = 128  # slots of a row that are computed together, as the kernels have it

_compiled: Any = torch.compile(flex_attention, dynamic=False)


def block_mask_of(runs: Runs) -> BlockMask:
    """Which blocks of keys each block of queries computes: all that one of them sees, masked where not all see all.

    Made from the runs' first slots alone, in a few operations over blocks; `create_block_mask` would look at every pair
    of slots, or be compiled for each length.
    """
    firsts = runs.firsts
    rows, length = firsts.shape
    count = -(-length // BLOCK)
    blocks = torch.arange(count, device=firsts.device)
    ends = torch.clamp((blocks + 1) * BLOCK, max=length) - 1
    lowest, highest = firsts[:, ::BLOCK].unsqueeze(2), firsts[:, ends].unsqueeze(2)  # (B, blocks, 1)
    seen = (blocks.unsqueeze(1) >= blocks) & ((blocks + 1) * BLOCK > lowest)
    complete = ((blocks + 1) * BLOCK <= length).unsqueeze(1)  # a block of queries that ends behind the row is not whole
    whole = (blocks.unsqueeze(1) > blocks) & (blocks * BLOCK >= highest) & complete
    partial_counts, partial = _in_order(seen & ~whole)
    whole_counts, whole_ones = _in_order(whole)

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (key >= firsts[batch if rows > 1 else 0, query])

    return BlockMask.from_kv_blocks(
        partial_counts, partial, whole_counts, whole_ones, BLOCK_SIZE=BLOCK, mask_mod=sees, seq_lengths=(length, length)
    )


def _in_order(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """(B, Q, K) of whether to counts (B, 1, Q) and numbers of the true ones, these first (B, 1, Q, K); int32."""
    order = blocks.int().argsort(dim=2, descending=True, stable=True)
    return blocks.sum(dim=2, dtype=torch.int32).unsqueeze(1), order.int().unsqueeze(1)


def with_blocks(runs: Runs) -> Runs:
    """The same runs, for FlexAttention."""
    return replace(runs, blocks=block_mask_of(runs))


def attend_blocks(queries: Tensor, keys: Tensor, values: Tensor, runs: Runs) -> Tensor:
    """Softmax attention of queries (B, L, heads, D) over keys and values (B, L, key heads, D): (B, L, heads, D).

    Args:
        runs: with their blocks.
    """
    slopes = runs.slopes

    def lowered(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return score - slopes[head] * (query - key)  # type: ignore[index]

    attend = _compiled if queries.device.type == "cuda" else flex_attention
    attended = attend(
        queries.transpose(1, 2),
        keys.transpose(1, 2),
        values.transpose(1, 2),
        score_mod=None if slopes is None else lowered,
        block_mask=runs.blocks,
        enable_gqa=queries.size(2) != keys.size(2),
    )
    return attended.transpose(1, 2)


def prove_flex_attention(config: ModelConfig, length: int, device: torch.device, dtype: torch.dtype) -> str | None:
    """Compares output and gradients with dense attention, on random rows of documents; None where they agree.

    The kernels are compiled for each device and shape, so that only the machine they run on can tell.

    Returns:
        What went wrong: an error's first line, or how far the two are apart.
    """
    generator = torch.Generator().manual_seed(0)
    documents = (torch.rand(1, length, generator=generator) < 4 / length).int().cumsum(dim=1).to(device)
    window = config.window(0)
    runs = runs_of_keys(config, window, length, documents, device)
    dense = attention_mask(config, window, length, documents, documents, dtype, device)
    counts = (config.heads, config.kv_heads, config.kv_heads, config.heads)
    *parts, weights = (
        torch.randn(1, length, heads, config.head_size, generator=generator).to(device, dtype) for heads in counts
    )
    try:
        ours = _with_gradients(lambda q, k, v: attend_blocks(q, k, v, with_blocks(runs)), parts, weights)
        theirs = _with_gradients(lambda q, k, v: _attend_densely(q, k, v, dense), parts, weights)
    except Exception as error:  # compilers raise all kinds
        return (str(error).strip() or type(error).__name__).splitlines()[0]
    for name, own, other in zip(("output", "queries", "keys", "values"), ours, theirs, strict=True):
        apart = ((own - other).float().norm() / other.float().norm()).item()
        if not apart < 0.02:  # roundings of bfloat16 make some thousandths
            return f"{name} {'is' if name == 'output' else 'gradients are'} {apart:.2g} apart from dense attention's"
    return None


def _with_gradients(attend: Any, parts: list[Tensor], weights: Tensor) -> list[Tensor]:
    parts = [part.detach().requires_grad_() for part in parts]
    out = attend(*parts)
    return [out.detach(), *torch.autograd.grad(out, parts, weights)]


def _attend_densely(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    groups = queries.size(2) // keys.size(2)
    q, k, v = queries.transpose(1, 2), *(x.transpose(1, 2).repeat_interleave(groups, dim=1) for x in (keys, values))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None).transpose(1, 2)
