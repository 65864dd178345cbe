"""The first weights of a model, tensor by tensor: the same for a seed however the model is laid over processes."""

import hashlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from .config import ModelConfig

_STD = 0.02


@torch.no_grad()
def init_weights(model: nn.Module, seed: int) -> None:
    """Fills all weights as GPT-2 does: normal with deviation 0.02, residual projections scaled by 1/sqrt(2 layers).

    Each tensor is drawn whole from a generator of its own, on the CPU in float32, and of a sharded one (DTensor) the
    own part kept. So the weights depend on the seed and the parameter's name alone, not on device, dtype or layout, and
    no more than one tensor is ever there whole. `model` is a Decoder, or holds some of one's parameters under their
    names (a pipeline stage) and its `config`.
    """
    config: Any = model.config
    for name, parameter in model.named_parameters():
        copy_part(parameter, _first_weight(config, name, parameter.shape, seed))


def _first_weight(config: ModelConfig, name: str, shape: torch.Size, seed: int) -> Tensor:
    if name.endswith("bias"):
        return torch.zeros(shape)
    if len(shape) == 1:
        return torch.ones(shape)
    is_residual = name.endswith(("attention.out.weight", "mlp.down.weight"))
    std = _STD / (2 * config.layers) ** 0.5 if is_residual else _STD
    drawn = torch.empty(shape).normal_(0.0, std, generator=generator_of(seed, name))
    if name in ("embed_tokens.weight", "head.weight"):
        drawn[config.vocab_size :] = 0  # padding
    return drawn


def generator_of(seed: int, name: str) -> torch.Generator:
    """A generator on the CPU for one tensor."""
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7]))


@torch.no_grad()
def copy_part(target: Tensor, whole: Tensor) -> None:
    """Copies a tensor into a parameter: of a sharded one (DTensor) into this process's part."""
    if isinstance(target, DTensor):
        shape, offset = compute_local_shape_and_global_offset(target.shape, target.device_mesh, target.placements)
        whole = whole[tuple(slice(start, start + size) for start, size in zip(offset, shape, strict=True))]
        target = target.to_local()
    target.copy_(whole)
