"""The parameters of a model over many ranks, whole again, one at a time."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from aurora_m.model import Decoder, adapted_layers, exported_parameters, merge_adapter

from .pipelining import Pipeline
from .ranks import Ranks


@dataclass(frozen=True)
class _Origin:
    """The rank that speaks for a parameter, and what it will send."""

    rank: int
    shape: torch.Size
    dtype: torch.dtype


@torch.no_grad()
def gather_tensors(model: Decoder | Pipeline, ranks: Ranks) -> Iterator[Tensor]:
    """The parameters of the whole model, adapters merged, one after the other as `write_model` takes them.

    All ranks go through it together, to the end. The main one gets them on its CPU; what others get is of no use.
    """
    held = {name: one for name, one in model.named_parameters() if not getattr(one, "is_copy", False)}
    speaks = ranks.place("data") == ranks.place("tensor") == 0  # one rank of each stage
    own = {name: _Origin(ranks.rank, one.shape, one.dtype) for name, one in held.items()} if speaks else {}
    origins = {name: origin for part in ranks.gather(own) for name, origin in part.items()}

    def take(name: str) -> Tensor:
        return _take(held.get(name), origins[name], ranks)

    scale = next((one.scale for one in adapted_layers(model).values()), 0.0)  # the same for all adapters
    for name in exported_parameters(model.config):
        adapter = name.removesuffix("weight") + "lora_"
        if f"{adapter}a" not in origins:
            yield take(name)
            continue
        weight, lora_a, lora_b = take(name), take(f"{adapter}a"), take(f"{adapter}b")
        yield merge_adapter(weight, lora_a, lora_b, scale) if ranks.is_main else weight


def _take(parameter: Tensor | None, origin: _Origin, ranks: Ranks) -> Tensor:
    """One parameter, on the main rank's CPU."""
    if isinstance(parameter, DTensor):
        parameter = parameter.full_tensor()  # together with the other ranks that have a part
    if parameter is not None and origin.rank == ranks.rank:
        whole = parameter.detach().cpu()
        if not ranks.is_main:
            dist.send(whole.contiguous(), dst=0)
        return whole
    if not ranks.is_main:
        return torch.empty(0)
    whole = torch.empty(origin.shape, dtype=origin.dtype)
    dist.recv(whole, src=origin.rank)
    return whole
