"""Where and how exactly to compute: device, precision, and how many sequences fit at once."""

from contextlib import AbstractContextManager
from typing import Literal

import psutil
import torch

from aurora_m.model import ModelConfig
from aurora_m.workspace import AuroraError

from .config import ActivationCheckpointing
from .job import local_rank

# On a CPU larger micro batches bring nothing once the matrices are busy: at hidden 192, 4,096 tokens at once measure
# as fast as 2,048 and as 8,192.
_CPU_ACTIVATION_BYTES = 512 * 2**20
_CUDA_ACTIVATION_SHARE = 0.5


def pick_device() -> torch.device:
    """CUDA where there is one, otherwise the CPU; under torchrun each process of a machine has its own GPU.

    Raises:
        AuroraError: more processes than GPUs.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    place, count = local_rank(), torch.cuda.device_count()
    if place is None:
        return torch.device("cuda")
    if place >= count:
        raise AuroraError(f"process {place} of this machine finds {count} GPUs; start {count} processes per machine")
    return torch.device("cuda", place)


def resolve_precision(precision: Literal["auto", "float32", "bfloat16"], device: torch.device) -> torch.dtype:
    """The dtype of matrix products. `auto` is bfloat16 on CUDA and on CPUs that multiply it in hardware.

    Decided by the processor's features and not by a stopwatch: a resumed run must decide alike.
    """
    if precision == "auto":
        return torch.bfloat16 if device.type == "cuda" or _cpu_multiplies_bfloat16() else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def _cpu_multiplies_bfloat16() -> bool:
    """AVX512-BF16 or AMX: a step of 2.4M parameters takes 0.25 s instead of 0.33 s (float32) on two cores of a Zen 5.

    Without them bfloat16 is emulated and slower than float32. The questions are private to torch, so they may go.
    """
    questions = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, question, lambda: False)() for question in questions)


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager:
    """Matrix products in `dtype`; weights, norms, losses and the optimizer stay in float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)


def auto_micro_batch(
    config: ModelConfig,
    sequences: int,
    sequence_length: int,
    device: torch.device,
    dtype: torch.dtype,
    checkpointing: ActivationCheckpointing = "none",
    *,
    memory_bytes: int | None = None,
) -> int:
    """Sequences per forward pass, so that the activations kept for the backward pass fit; equal parts of a step.

    It depends on the machine's total memory and not on what happens to be free: a resumed run must split its steps
    as before, or its sums would round differently. `memory_bytes` is that of a CUDA device that is not here (a plan).
    """
    size = 2 if dtype == torch.bfloat16 else 4
    per_token = activation_bytes(config, size, checkpointing)
    if config.positions == "alibi":
        # Its penalties are a number for each head and pair of tokens, shared by all layers; float32 while made.
        per_token += (size + 4) * config.heads * sequence_length
    if device.type == "cuda":
        states = 16 * estimated_parameters(config)  # float32 weight, gradient and two moments
        total = memory_bytes or torch.cuda.get_device_properties(device).total_memory
        budget = max(0, total - states) * _CUDA_ACTIVATION_SHARE
    else:
        budget = min(_CPU_ACTIVATION_BYTES, psutil.virtual_memory().total // 8)
    fitting = max(1, int(budget // (per_token * sequence_length)))
    parts = -(-sequences // fitting)
    return -(-sequences // parts)


def activation_bytes(config: ModelConfig, size: int, checkpointing: ActivationCheckpointing = "none") -> int:
    """About what the layers keep of a token for the backward pass; numbers of products take `size` bytes."""
    ffn_tensors = 2 if config.gated_mlp else 1
    whole_layer = size * (10 * config.hidden_size + (ffn_tensors + 2) * config.ffn_size)
    if checkpointing == "none":
        return config.layers * whole_layer
    layer_input = 4 * config.hidden_size  # the stream is float32
    products = size * (6 * config.hidden_size + ffn_tensors * config.ffn_size)
    # One layer at a time is there whole again.
    return config.layers * (layer_input + products * (checkpointing == "selective")) + whole_layer


def pipelined_micro_batch(micro_batch: int, sequences: int, stages: int) -> int:
    """The largest micro batch, up to the given one, that a pipeline of `stages` ranks can run `sequences` in.

    They come in equal numbers, and four for each rank where there are as many: with m of them the ranks idle
    (stages - 1) / (m + stages - 1) of the time.
    """
    if stages == 1:
        return micro_batch
    most = min(micro_batch, max(1, sequences // (4 * stages)))
    sizes = [size for size in range(1, most + 1) if sequences % size == 0]
    # The interleaved schedule deals micro batches in rounds of one for each rank.
    rounds = [size for size in sizes if sequences // size % stages == 0]
    return max(rounds or sizes)


def estimated_parameters(config: ModelConfig) -> int:
    """Weights in the matrices; norms and biases are too few to matter here."""
    attention = config.hidden_size * config.head_size * (2 * config.heads + 2 * config.kv_heads)
    ffn = config.hidden_size * config.ffn_size * (3 if config.gated_mlp else 2)
    embeddings = config.embedding_rows * config.hidden_size * (1 if config.tied_embeddings else 2)
    return config.layers * (attention + ffn) + embeddings
