"""The norms of a decoder."""

import torch.nn.functional as F
from torch import Tensor, nn

from .config import ModelConfig


class RMSNorm(nn.RMSNorm):
    """RMS norm in its input's dtype: under autocast a float32 weight beside bfloat16 input would undo the fusion."""

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class LayerNorm(nn.LayerNorm):
    """Layer norm in its input's dtype, also where a sharded model gathers its weights in bfloat16."""

    def forward(self, input: Tensor) -> Tensor:
        weight, bias = (one if one is None else one.to(input.dtype) for one in (self.weight, self.bias))
        return F.layer_norm(input, self.normalized_shape, weight, bias, self.eps)


def stream_norm(config: ModelConfig) -> nn.Module:
    """A norm over the full width of the stream."""
    kind = LayerNorm if config.norm == "layernorm" else RMSNorm
    return kind(config.hidden_size, eps=config.norm_eps)


def query_key_norms(config: ModelConfig) -> tuple[nn.Module | None, nn.Module | None]:
    """The norms of queries and keys: of the width of a head, or of all heads; (None, None) where there are none."""
    if config.qk_norm is None:
        return None, None
    heads = (config.heads, config.kv_heads) if config.qk_norm == "full" else (1, 1)
    queries, keys = (RMSNorm(count * config.head_size, eps=config.norm_eps) for count in heads)
    return queries, keys
