"""Where and how exactly to compute: device, precision, and how many sequences fit at once."""

from contextlib import AbstractContextManager
from typing import Literal

import psutil
import torch

from aurora_m.model import ModelConfig

# On CPU a larger micro batch buys nothing once the matrices are busy, and costs cache misses: 256 MB measured best
# at hidden sizes of 192 to 512.
_CPU_ACTIVATION_BYTES = 256 * 2**20
_CUDA_ACTIVATION_SHARE = 0.5


def pick_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def resolve_precision(precision: Literal["auto", "float32", "bfloat16"], device: torch.device) -> torch.dtype:
    """The dtype of matrix products. `auto`: bfloat16 on CUDA, float32 on CPU (without AMX, bfloat16 is slower there)."""
    if precision == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager:
    """Matrix products in `dtype`; weights, norms, losses and the optimizer stay in float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)


def auto_micro_batch(config: ModelConfig, sequence_length: int, device: torch.device, dtype: torch.dtype) -> int:
    """Sequences per forward pass, from an estimate of the activations kept for the backward pass.

    It depends on the machine's total memory and not on what happens to be free: a resumed run must split its steps
    as before, or its sums would round differently.
    """
    size = 2 if dtype == torch.bfloat16 else 4
    ffn_tensors = 4 if config.gated_mlp else 3
    per_token = config.layers * size * (10 * config.hidden_size + ffn_tensors * config.ffn_size)
    if device.type == "cuda":
        states = 16 * estimated_parameters(config)  # float32 weight, gradient and two moments
        budget = max(0, torch.cuda.get_device_properties(device).total_memory - states) * _CUDA_ACTIVATION_SHARE
    else:
        budget = min(_CPU_ACTIVATION_BYTES, psutil.virtual_memory().total // 8)
    return max(1, int(budget // (per_token * sequence_length)))


def estimated_parameters(config: ModelConfig) -> int:
    """Weights in the matrices; norms and biases are too few to matter here."""
    attention = config.hidden_size * config.head_size * (2 * config.heads + 2 * config.kv_heads)
    ffn = config.hidden_size * config.ffn_size * (3 if config.gated_mlp else 2)
    embeddings = config.embedding_rows * config.hidden_size * (1 if config.tied_embeddings else 2)
    return config.layers * (attention + ffn) + embeddings
