"""Causal self-attention inside documents: the mask, rotary positions, the key-value cache, the module."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import ModelConfig
from .linear import Linear


def document_mask(query_documents: Tensor, key_documents: Tensor, start: int, dtype: torch.dtype) -> Tensor:
    """An additive mask (B, 1, Q, K): 0 where a query may look, -inf where it may not.

    A query at slot `start + i` sees the keys at slots up to its own that belong to the same document. It is built once
    per forward pass and shared by all layers; additive, because a boolean one would be converted again in every layer.

    Args:
        query_documents: (B, Q) document number of each query.
        key_documents: (B, K) document number of each key; K = start + Q.
    """
    slots = torch.arange(key_documents.size(1), device=key_documents.device)
    allowed = query_documents.unsqueeze(2) == key_documents.unsqueeze(1)
    allowed &= slots[start:].unsqueeze(1) >= slots
    mask = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
    return mask.masked_fill_(~allowed, -torch.inf).unsqueeze(1)


def rotary_frequencies(config: ModelConfig, device: torch.device) -> Tensor:
    """Radians per position of each rotated pair (head_size / 2,), float32; after RoFormer (Su et al. 2021).

    With `rope_scaling` long wavelengths are stretched by `factor`, short ones kept, those between blended (Llama 3).
    """
    half = config.head_size // 2
    exponents = torch.arange(half, dtype=torch.float32, device=device) / half
    frequencies = 1.0 / config.rope_theta**exponents
    scaling = config.rope_scaling
    if scaling is None:
        return frequencies
    turns = scaling.original_max_positions * frequencies / (2 * math.pi)
    kept = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    kept = kept.clamp(0, 1)
    return frequencies * (kept + (1 - kept) / scaling.factor)


def rotary_table(config: ModelConfig, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines for `positions` (L) or (B, L): each (L or B, L; 1, head_size / 2), float32."""
    angles = positions.unsqueeze(-1).float() * rotary_frequencies(config, positions.device)
    return angles.cos().unsqueeze(-2), angles.sin().unsqueeze(-2)


def rotate(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Rotates (B, L, heads, head_size) by position. Pair i is (i, i + head_size / 2), the order Hugging Face stores."""
    cos, sin = (part.to(x.dtype) for part in table)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


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
        self.q = Linear(config.hidden_size, self.heads * self.head_size, bias=config.biases)
        self.k = Linear(config.hidden_size, self.kv_heads * self.head_size, bias=config.biases)
        self.v = Linear(config.hidden_size, self.kv_heads * self.head_size, bias=config.biases)
        self.out = Linear(self.heads * self.head_size, config.hidden_size, bias=config.biases)

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor] | None,
        mask: Tensor | None,
        cache: KeyValueCache | None,
    ) -> Tensor:
        """(B, L, hidden) to the same. Without a mask every query sees all earlier tokens of its row."""
        batch, length, _ = x.shape
        queries = self.q(x).view(batch, length, self.heads, self.head_size)
        keys = self.k(x).view(batch, length, self.kv_heads, self.head_size)
        values = self.v(x).view(batch, length, self.kv_heads, self.head_size).transpose(1, 2)
        if rotary is not None:
            queries, keys = rotate(queries, rotary), rotate(keys, rotary)
        queries, keys = queries.transpose(1, 2), keys.transpose(1, 2)
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
