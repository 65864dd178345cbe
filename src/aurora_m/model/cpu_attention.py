"""Attention on the CPU by kernels of ours, as operators of PyTorch: autograd, fake tensors and torch.compile know them.

Against `scaled_dot_product_attention` on one core of an AVX-512 EPYC, forward and backward, 8 rows of 512, 10 heads of
64: 77 ms and 226 ms (one document a row), 50 ms and 231 ms (documents of 128 tokens on average).
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .attention_kernels import BLOCK, attend_heads, backpropagate_heads
from .tiles import LANES, TILE_COLUMNS

_SLOTS = max(BLOCK, TILE_COLUMNS)  # rows are padded to a multiple of it
_PADDING = LANES  # floats behind a row of scores, so that one column's numbers do not fall into the same cache lines


def attend_runs(queries: Tensor, keys: Tensor, values: Tensor, firsts: Tensor, slopes: Tensor | None) -> Tensor:
    """Softmax attention of queries (B, L, heads, D) over keys and values (B, L, key heads, D): (B, L, heads, D).

    Computed in float32, whatever comes in; equal to dense attention under the same mask within rounding.

    Args:
        firsts: (B or 1, L) int32, never falling along a row: each query sees the keys from that slot up to its own.
        slopes: (heads) float32: by how much ALiBi lowers a score for each token of distance; None: not at all.
    """
    length, depth = queries.shape[1], queries.shape[3]
    dtype = queries.dtype
    extra_slots, extra_depth = -length % _SLOTS, -depth % TILE_COLUMNS
    parts = [part.float() for part in (queries, keys, values)]
    if extra_slots or extra_depth:
        parts = [F.pad(part, (0, extra_depth, 0, 0, 0, extra_slots)) for part in parts]
    if extra_slots:  # what is behind the row sees itself
        own = torch.arange(length, length + extra_slots, dtype=torch.int32)
        firsts = torch.cat([firsts, own.expand(firsts.size(0), -1)], dim=1)
    if slopes is None:
        slopes = torch.zeros(queries.size(2))
    attended, _ = run_attention(*parts, firsts.contiguous(), slopes.contiguous(), depth**-0.5)
    return attended[:, :length, :, :depth].to(dtype)


# ----------------------------------------------------------------------------------------------- the operators
@torch.library.custom_op("aurora_m::run_attention", mutates_args=())
def run_attention(
    queries: Tensor, keys: Tensor, values: Tensor, firsts: Tensor, slopes: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """What the heads attended to (B, L, heads, D), and the logarithms of their softmax's sums (B, heads, L)."""
    queries, keys, values = (_with_plain_depth(x) for x in (queries, keys, values))
    batch, length, heads, depth = queries.shape
    out, sums = torch.empty(batch, length, heads, depth), torch.empty(batch, heads, length)
    panels = _panels(keys)

    def work(start: int, end: int) -> None:
        attend_heads(
            start,
            end,
            heads,
            heads // keys.size(2),
            queries.data_ptr(),
            (*queries.stride()[:3], *values.stride()[:3]),
            panels.data_ptr(),
            values.data_ptr(),
            _array(firsts),
            _array(slopes),
            np.float32(scale),
            _array(out),
            _array(sums),
            _room(length),
            *_exponents(length),
        )

    _share(work, batch * heads)
    return out, sums


@torch.library.custom_op("aurora_m::run_attention_backward", mutates_args=())
def run_attention_backward(
    d_out: Tensor,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    firsts: Tensor,
    slopes: Tensor,
    out: Tensor,
    sums: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values."""
    d_out, queries, keys = d_out.contiguous(), _with_plain_depth(queries), _with_plain_depth(keys)
    batch, length, heads, _ = queries.shape
    d_queries, d_keys, d_values = (torch.empty_like(out) for _ in range(3))
    key_panels, value_panels = _panels(keys), _panels(values)

    def work(start: int, end: int) -> None:
        backpropagate_heads(
            start,
            end,
            heads,
            heads // keys.size(2),
            queries.data_ptr(),
            keys.data_ptr(),
            _array(d_out),
            (*queries.stride()[:3], *keys.stride()[:3]),
            key_panels.data_ptr(),
            value_panels.data_ptr(),
            _array(firsts),
            _array(slopes),
            np.float32(scale),
            _array(out),
            _array(sums),
            _array(d_queries),
            _array(d_keys),
            _array(d_values),
            _room(length),
            _room(length),
            *_exponents(length),
        )

    _share(work, batch * heads)
    if keys.size(2) < heads:
        d_keys, d_values = (x.unflatten(2, (keys.size(2), -1)).sum(dim=3) for x in (d_keys, d_values))
    return d_queries, d_keys, d_values


@run_attention.register_fake
def _(queries: Tensor, keys: Tensor, values: Tensor, firsts: Tensor, slopes: Tensor, scale: float) -> Any:
    batch, length, heads, _ = queries.shape
    return queries.new_empty(queries.shape), queries.new_empty(batch, heads, length)


@run_attention_backward.register_fake
def _(d_out: Tensor, queries: Tensor, keys: Tensor, values: Tensor, *_: Any) -> Any:
    return tuple(x.new_empty(x.shape) for x in (queries, keys, values))


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*tensors, *output)


def _backpropagate(ctx: Any, d_out: Tensor, _: Tensor | None) -> Any:
    return (*run_attention_backward(d_out, *ctx.saved_tensors, ctx.scale), None, None, None)


run_attention.register_autograd(_backpropagate, setup_context=_keep)


# ----------------------------------------------------------------------------------------------- what they need
def _array(x: Tensor) -> np.ndarray:
    """The tensor's memory. What autograd keeps of an operator's results still belongs to its graph."""
    return x.detach().numpy()


def _with_plain_depth(x: Tensor) -> Tensor:
    return x if x.stride(3) == 1 else x.contiguous()


def _panels(x: Tensor) -> Tensor:
    """(B, L, heads, D) to (B, heads, L / TILE_COLUMNS, D, TILE_COLUMNS): columns of a product, side by side."""
    return x.unflatten(1, (-1, TILE_COLUMNS)).permute(0, 3, 1, 4, 2).contiguous()


def _room(length: int) -> np.ndarray:
    """Where the scores of a block of queries go."""
    return np.empty((BLOCK, length + _PADDING), dtype=np.float32)


def _exponents(length: int) -> tuple[np.ndarray, np.ndarray]:
    """The same memory as int32 and float32."""
    bits = np.empty(length, dtype=np.int32)
    return bits, bits.view(np.float32)


def _share(work: Callable[[int, int], None], items: int) -> None:
    """Has as many threads as torch uses do their part of the items each, this one among them."""
    threads = min(torch.get_num_threads(), items)
    bounds = [items * thread // threads for thread in range(threads + 1)]
    parts = [_pool(threads - 1).submit(work, bounds[i], bounds[i + 1]) for i in range(1, threads)]
    work(bounds[0], bounds[1])
    for part in parts:
        part.result()


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="attention")


os.register_at_fork(after_in_child=_pool.cache_clear)  # a forked process has the pool but none of its threads
