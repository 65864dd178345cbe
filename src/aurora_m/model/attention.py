"""Causal self-attention inside documents: what each query sees, the key-value cache, the module."""

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import ModelConfig
from .linear import Linear
from .norms import query_key_norms
from .positions import alibi_slopes, rotate


@dataclass(frozen=True)
class Runs:
    """What queries see, as runs of keys that end at themselves: what fast kernels are told instead of a mask.

    `firsts` (B or 1, L) int32: the first slot each query sees, never falling along a row. `slopes` (heads) float32: by
    how much ALiBi lowers a score for each token of distance; None: not at all. `blocks`: the BlockMask of the same,
    where FlexAttention computes it.
    """

    firsts: Tensor
    slopes: Tensor | None = None
    blocks: Any = None


def runs_of_keys(
    config: ModelConfig, window: int | None, length: int, documents: Tensor | None, device: torch.device
) -> Runs:
    """The runs of rows without a cache; the same as `attention_mask` says, for documents that stand in one piece.

    Args:
        window: how many tokens a query sees, itself included; None: all.
        documents: (B, L) document numbers; None: one document a row.
    """
    slots = torch.arange(length, dtype=torch.int32, device=device)
    firsts = torch.zeros(1, length, dtype=torch.int32, device=device)
    if documents is not None:
        begins = F.pad(documents[:, 1:] != documents[:, :-1], (1, 0))
        firsts = torch.where(begins, slots, 0).cummax(dim=1).values
    if window is not None:
        firsts = torch.maximum(firsts, slots - (window - 1))
    slopes = torch.tensor(alibi_slopes(config.heads), device=device) if config.positions == "alibi" else None
    return Runs(firsts, slopes)


def attention_mask(
    config: ModelConfig,
    window: int | None,
    query_length: int,
    query_documents: Tensor | None,
    key_documents: Tensor | None,
    dtype: torch.dtype,
    device: torch.device,
    start: int = 0,
) -> Tensor | None:
    """What is added to the scores: -inf where a query may not look, and ALiBi's penalties. None: plain causal does.

    A query at slot `start + i` sees the keys at slots up to its own that belong to the same document and lie within
    its window. Documents stand in one piece, so that distances of slots are distances of positions. Built once per
    forward pass and shared by all layers; additive, because a boolean mask would be converted again in every layer.

    Args:
        window: how many tokens a query sees, itself included; None: all.
        query_documents, key_documents: (B, Q) and (B, K) document numbers, K = start + Q; None: one document a row.

    Returns:
        (B or 1, heads or 1, Q, K); heads with ALiBi only.
    """
    slots = torch.arange(start + query_length, device=device)
    if window is not None and start + query_length <= window:
        window = None
    alibi = config.positions == "alibi"
    if query_documents is None and window is None and not alibi and (start == 0 or query_length == 1):
        return None
    distances = slots[start:].unsqueeze(1) - slots
    allowed = (distances >= 0).unsqueeze(0)
    if window is not None:
        allowed = allowed & (distances < window)
    if query_documents is not None and key_documents is not None:
        allowed = allowed & (query_documents.unsqueeze(2) == key_documents.unsqueeze(1))
    if alibi:
        slopes = torch.tensor(alibi_slopes(config.heads), device=device).view(-1, 1, 1)
        return (-slopes * distances).to(dtype).masked_fill(~allowed.unsqueeze(1), -torch.inf)
    mask = torch.zeros(allowed.shape, dtype=dtype, device=device)
    return mask.masked_fill_(~allowed, -torch.inf).unsqueeze(1)


def mask_of_heads(mask: Tensor | Runs | None, heads: slice) -> Tensor | Runs | None:
    """The mask of some of the heads."""
    if isinstance(mask, Runs):
        return mask if mask.slopes is None else replace(mask, slopes=mask.slopes[heads])
    return mask if mask is None or mask.size(1) == 1 else mask[:, heads]


class KeyValueCache:
    """Keys, values and document numbers of the tokens seen so far, in buffers allocated once."""

    def __init__(
        self, config: ModelConfig, batch: int, capacity: int, dtype: torch.dtype, device: torch.device | str
    ) -> None:
        shape = (config.layers, batch, config.kv_heads, capacity, config.head_size)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.documents = torch.zeros((batch, capacity), dtype=torch.int32, device=device)
        self.length = 0

    def store(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Adds (B, kv_heads, Q, head_size) after the `length` known tokens; returns all the layer's keys and values."""
        end = self.length + keys.size(2)
        self.keys[layer, :, :, self.length : end] = keys
        self.values[layer, :, :, self.length : end] = values
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]


class Attention(nn.Module):
    """Multi-head, grouped-query or multi-query attention, by `kv_heads`."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.heads, self.kv_heads, self.head_size = config.heads, config.kv_heads, config.head_size
        # Three projections, not one fused: each can be sharded by heads, and fusing gained nothing measurable on CPU.
        queries, keys = self.heads * self.head_size, self.kv_heads * self.head_size
        self.q = Linear(config.hidden_size, queries, bias=config.qkv_bias)
        self.k = Linear(config.hidden_size, keys, bias=config.qkv_bias)
        self.v = Linear(config.hidden_size, keys, bias=config.qkv_bias)
        self.out = Linear(queries, config.hidden_size, bias=config.out_bias)
        self.norm_full_width = config.qk_norm == "full"
        self.q_norm, self.k_norm = query_key_norms(config)

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor] | None,
        mask: Tensor | Runs | None,
        cache: KeyValueCache | None,
    ) -> Tensor:
        """(B, L, hidden) to the same. Without a mask every query sees all earlier tokens of its row."""
        batch, length, _ = x.shape
        queries = self._split_heads(self.q(x), self.q_norm)
        keys = self._split_heads(self.k(x), self.k_norm)
        values = self._split_heads(self.v(x), None)
        if rotary is not None:
            queries, keys = rotate(queries, rotary), rotate(keys, rotary)
        if isinstance(mask, Runs):
            return self.out(_attend_runs(queries, keys, values, mask).reshape(batch, length, -1))
        queries, keys, values = queries.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2)
        if cache is not None:
            keys, values = cache.store(self.layer, keys, values)
        attended = F.scaled_dot_product_attention(
            queries,
            self._for_each_head(keys),
            self._for_each_head(values),
            attn_mask=mask,
            is_causal=mask is None and length > 1,
        )
        return self.out(attended.transpose(1, 2).reshape(batch, length, -1))

    def _split_heads(self, x: Tensor, norm: nn.Module | None) -> Tensor:
        """(B, L, heads * D) to (B, L, heads, D), normalised where there is a norm."""
        if norm is not None and self.norm_full_width:
            x = norm(x)
        x = x.unflatten(-1, (-1, self.head_size))
        return x if norm is None or self.norm_full_width else norm(x)

    def _for_each_head(self, x: Tensor) -> Tensor:
        """(B, kv_heads, K, D) to (B, heads, K, D); a view where there is one key head.

        Forward and backward at B=8, L=512, 4 heads of 64, 2 threads of an AVX-512 EPYC: this 46 ms, enable_gqa 46 ms,
        heads folded into the query length 46 ms, plain matmul and softmax 106 ms; with the additive mask 49 ms, with a
        boolean one 52 ms (which also costs its conversion in every layer).
        """
        if self.kv_heads == self.heads:
            return x
        batch, _, length, width = x.shape
        groups = self.heads // self.kv_heads
        return x.unsqueeze(2).expand(batch, self.kv_heads, groups, length, width).flatten(1, 2)


def _attend_runs(queries: Tensor, keys: Tensor, values: Tensor, runs: Runs) -> Tensor:
    """By FlexAttention where its mask was made, else by the kernels for CPUs. Both take long to import."""
    if runs.blocks is not None:
        from .flex_attention import attend_blocks

        return attend_blocks(queries, keys, values, runs)
    from .cpu_attention import attend_runs

    return attend_runs(queries, keys, values, runs.firsts, runs.slopes)
