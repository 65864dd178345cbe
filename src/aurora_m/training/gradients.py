"""Gradients that lie in shards over a mesh: brought to their parameters' layout, measured, clipped."""

from math import prod

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from .ranks import Ranks


def settle_gradients(parameters: list[nn.Parameter]) -> None:
    """Sums gradients that are still parts (norms on parts of a sequence, shared key heads) over the tensor ranks."""
    for parameter in parameters:
        gradient = parameter.grad
        if isinstance(gradient, DTensor) and gradient.placements != parameter.placements:  # type: ignore[attr-defined]
            parameter.grad = gradient.redistribute(placements=parameter.placements)  # type: ignore[attr-defined]


def keep_only_embeddings(model: nn.Module) -> None:
    """Drops all gradients but those of the rows of tokens, so that a step leaves the rest and its moments alone."""
    for name, parameter in model.named_parameters():
        if name not in ("embed_tokens.weight", "head.weight"):
            parameter.grad = None


def local_tensor(tensor: Tensor) -> Tensor:
    """This rank's shard of a DTensor; any other tensor itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def clip_gradients(parameters: list[nn.Parameter], limit: float, ranks: Ranks) -> Tensor:
    """Scales all gradients so that their norm over all ranks is at most `limit`; returns the norm before (float32).

    As `nn.utils.clip_grad_norm_`, which knows no mesh. Each element counts once, on however many ranks it lies. All
    ranks get the same norm, also where one alone holds a number that is not finite.
    """
    if ranks.alone:
        return nn.utils.clip_grad_norm_(parameters, limit)
    settle_gradients(parameters)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    sharers: dict[tuple[str, ...], list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None and not getattr(parameter, "is_copy", False):
            sharers.setdefault(_split_over(parameter.grad), []).append(local_tensor(parameter.grad))
    device = local_tensor(gradients[0]).device
    total = torch.zeros((), device=device)
    for dimensions, locals_ in sorted(sharers.items()):
        square = nn.utils.get_total_norm(locals_).square()
        copies = prod(ranks.degree(one) for one in ("data", "tensor") if one not in dimensions)
        total += ranks.sum(square / copies, "data", "tensor")
    norm = ranks.sum(total, "pipeline").sqrt()
    factor = (limit / (norm + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        local_tensor(gradient).mul_(factor)
    return norm


def _split_over(tensor: Tensor) -> tuple[str, ...]:
    """The mesh dimensions a tensor is split over."""
    if not isinstance(tensor, DTensor):
        return ()
    names = tensor.device_mesh.mesh_dim_names or ()
    return tuple(name for name, placement in zip(names, tensor.placements, strict=True) if not placement.is_replicate())
