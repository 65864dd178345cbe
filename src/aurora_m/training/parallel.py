"""How a decoder is laid over many devices; the decoder itself knows nothing of it.

The mesh has three dimensions, from the slowest links to the fastest: pipeline, data, tensor.

- tensor: attention heads, the MLP's inner width and the vocabulary are split (Shoeybi et al. 2019). With `sequence`,
  what lies between those products is split over the tokens of a sequence (Korthikanti et al. 2022).
- data: each rank takes its part of a step's sequences; weights, gradients and moments are sharded (FSDP2; Rajbhandari
  et al. 2020).
- pipeline: `pipelining.py`.

`build_mesh` and `parallelize` run as well with PyTorch's fake process group, on a model on the meta device; `to_empty`
under FakeTensorMode then gives a sharded model that computes nothing.
"""

import logging
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)
from torch.distributed.tensor.placement_types import Partial, Placement

from aurora_m.model import Decoder, LoraConfig, ModelConfig, mask_of_heads
from aurora_m.workspace import RecipeError

from .config import ParallelConfig, PhaseConfig
from .pipelining import Pipeline, cut

M = TypeVar("M", bound=nn.Module)

# It remarks, on every rank, that a bias split over two dimensions is gathered in two steps.
logging.getLogger("torch.distributed.tensor._redistribute").setLevel(logging.ERROR)

DIMENSIONS = ("pipeline", "data", "tensor")


# ----------------------------------------------------------------------------------------------- the mesh
def build_mesh(config: ParallelConfig, device_type: str, world_size: int) -> DeviceMesh:
    """The mesh (pipeline, data, tensor) of a job of `world_size` ranks. A process group must be there.

    Raises:
        RecipeError: the degrees do not make `world_size`.
    """
    return init_device_mesh(device_type, config.degrees(world_size), mesh_dim_names=DIMENSIONS)


def check_model(config: ModelConfig, parallel: ParallelConfig, world_size: int, lora: LoraConfig | None = None) -> None:
    """Checks that a model, and its adapters where it has any, can be split as asked.

    Raises:
        RecipeError: heads, the MLP's width, the hidden size, the layers or the adapters' rank do not divide.
    """
    pipeline, data, tensor = parallel.degrees(world_size)
    for name in ("heads", "ffn_size"):
        if (size := getattr(config, name)) % tensor:
            raise RecipeError(
                f"parallel.tensor {tensor} does not divide the model's {name} {size}; "
                f"choose {_divisors_below(size, tensor)}"
            )
    if tensor > 1 and config.hidden_size % data:
        raise RecipeError(
            f"the model's hidden_size {config.hidden_size} is not a multiple of the data degree {data}, which sharding "
            f"together with parallel.tensor needs; choose {_divisors_below(config.hidden_size, data)}"
        )
    if tensor > 1 and lora and lora.rank % data:
        raise RecipeError(
            f"lora.rank {lora.rank} is not a multiple of the data degree {data}, which sharding together with "
            f"parallel.tensor needs; the nearest is {max(1, round(lora.rank / data)) * data}"
        )
    stages = pipeline * parallel.stages_per_rank
    if stages > config.layers:
        raise RecipeError(f"{stages} pipeline stages need as many layers, and the model has {config.layers}")


def check_phase(phase: PhaseConfig, parallel: ParallelConfig, world_size: int) -> None:
    """Checks that a phase's steps can be dealt to the data ranks, and its sequences be split.

    Raises:
        RecipeError: they do not divide.
    """
    _, data, tensor = parallel.degrees(world_size)
    together = phase.sequences_together
    steps = f"{together} sequences per step" if phase.ramp is None else f"steps of a multiple of {together} sequences"
    if together % data:
        raise RecipeError(
            f"phase {phase.name}: {steps} cannot be dealt to {data} data ranks; "
            f"make tokens_per_step a multiple of {data * phase.sequence_length}"
        )
    if parallel.stages_per_rank > 1 and together // data % parallel.pipeline:
        raise RecipeError(
            f"phase {phase.name}: the interleaved schedule deals {together // data} sequences per data "
            f"rank to {parallel.pipeline} pipeline ranks; make them a multiple, or leave stages_per_rank out"
        )
    if parallel.sequence and phase.sequence_length % tensor:
        raise RecipeError(
            f"phase {phase.name}: sequence_length {phase.sequence_length} is not a multiple of parallel.tensor "
            f"{tensor}; change one of them or set parallel.sequence: false"
        )


def _divisors_below(size: int, limit: int) -> str:
    fitting = [str(number) for number in range(1, limit) if size % number == 0]
    return " or ".join(fitting[-2:])


# ----------------------------------------------------------------------------------------------- the split
def parallelize(
    model: Decoder,
    mesh: DeviceMesh,
    config: ParallelConfig,
    *,
    compiled: bool = False,
    dtype: torch.dtype = torch.float32,
) -> "Decoder | Pipeline":
    """Splits a decoder over the mesh: its layers over pipeline ranks, then each part over tensor and data ranks.

    All ranks bring the same weights; each keeps its shards, and `model` is used up. Parameters become DTensors with
    their names unchanged. With `compiled` each layer is compiled by itself, so that the time it takes does not grow
    with their number. `dtype` is what matrix products run in and layers are gathered in; shards stay float32.
    """
    if config.pipeline == 1:
        return _parallelize_part(model, mesh, config, compiled, dtype)
    count = config.pipeline * config.stages_per_rank
    numbers = range(mesh["pipeline"].get_local_rank(), count, config.pipeline)
    parts = {number: cut(model, number, count) for number in numbers}
    return Pipeline(
        {number: _parallelize_part(part, mesh, config, compiled, dtype) for number, part in parts.items()}, mesh, config
    )


def _parallelize_part(
    model: Decoder, mesh: DeviceMesh, config: ParallelConfig, compiled: bool, dtype: torch.dtype
) -> Decoder:
    if mesh["tensor"].size() > 1:
        _split_tensors(model, mesh["tensor"], config)
    if compiled:
        for layer in own_layers(model):
            layer.compile()
    if mesh["data"].size() > 1:
        _shard(model, mesh["data"], dtype)
    return _bring(model, mesh)


def reshard(model: nn.Module) -> None:
    """Gives back gathered weights that only a backward pass would; after forward passes alone."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def own_layers(model: Decoder) -> Iterator[nn.Module]:
    """The layers that are held here: all of them, unless `model` is a pipeline part."""
    return (layer for layer in model.layers if any(True for _ in layer.parameters()))


def _bring(module: M, mesh: DeviceMesh) -> M:
    """Moves a module to the mesh's devices; on the meta device it stays, for the caller to fill (`to_empty`).

    What is there is left alone, because fake tensors cannot be put in each other's place.
    """
    stay = ("meta", mesh.device_type)
    return module if all(one.device.type in stay for one in module.parameters()) else module.to(mesh.device_type)


def _shard(model: Decoder, mesh: DeviceMesh, dtype: torch.dtype) -> None:
    """FSDP2, a group of parameters per layer; embedding, head and last norm stay gathered until the step's end.

    Layers are gathered in the dtype of matrix products, which is what these would cast the weights to; gradients are
    summed over ranks in float32. Embedding, head and last norm are gathered in float32: the stream begins and the loss
    ends in it.
    """
    mixed = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    policy = mixed if dtype != torch.float32 else MixedPrecisionPolicy()

    def placement(parameter: nn.Parameter) -> Shard | None:
        # Rows split over tensor ranks are split by columns here: a vocabulary need not divide by either degree then.
        split_rows = isinstance(parameter, DTensor) and parameter.placements[0] == Shard(0)
        return Shard(1) if split_rows and parameter.dim() > 1 else None

    for layer in own_layers(model):
        _bring(layer, mesh)  # one at a time: the whole model may be more than a device holds
        fully_shard(layer, mesh=mesh, shard_placement_fn=placement, mp_policy=policy)
    _bring(model, mesh)
    fully_shard(model, mesh=mesh, shard_placement_fn=placement, reshard_after_forward=False)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            # The loss is normalised over all ranks already, so gradients are summed.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def _split_tensors(model: Decoder, mesh: DeviceMesh, config: ParallelConfig) -> None:
    between: Placement = Shard(1) if config.sequence else Replicate()
    embeds = isinstance(model.embed_tokens, nn.Embedding)  # and is not a later stage's copy of a tied head
    plan: dict[str, ParallelStyle] = {
        "embed_tokens": RowwiseParallel(input_layouts=Replicate(), output_layouts=between) if embeds else _SplitRows(),
        "embed_positions": RowwiseParallel(input_layouts=Replicate(), output_layouts=between),
        "embed_norm": _Norm(between),
        "head": ColwiseParallel(),
        "final_norm": _Norm(between, local_output=config.pipeline > 1),  # what the loss gathers
    }
    _apply(model, mesh, plan)
    for layer in own_layers(model):
        attention: Any = layer.get_submodule("attention")
        shared = attention.kv_heads % mesh.size() != 0
        key_value: Any = _SharedHeads(attention) if shared else _Columns()
        plan = {
            "attention_norm": _Norm(between),
            "mlp_norm": _Norm(between),
            "attention": _AttentionInput(between, attention.heads),
            "attention.q": _Columns(),
            "attention.k": key_value,
            "attention.v": key_value,
            "attention.q_norm": _HeadNorm(attention.norm_full_width),
            "attention.k_norm": _HeadNorm(attention.norm_full_width),
            "attention.out": _Rows(output_layouts=between),
            "mlp": _WholeInput(between),
            "mlp.gate": _Columns(),
            "mlp.up": _Columns(),
            "mlp.down": _Rows(output_layouts=between),
        }
        if shared and attention.norm_full_width and attention.k_norm is not None:
            plan |= {"attention.k": _Whole(), "attention.k_norm": key_value}  # normed first, taken apart then
        _apply(layer, mesh, plan)
        attention.heads //= mesh.size()
        attention.kv_heads = len(key_value.local_heads(mesh)) if shared else attention.kv_heads // mesh.size()


def _apply(module: nn.Module, mesh: DeviceMesh, plan: dict[str, ParallelStyle]) -> None:
    present = {name: style for name, style in plan.items() if _has_parameters(module, name)}
    # All ranks hold the same weights, so nothing needs to be sent (None).
    parallelize_module(module, mesh, present, src_data_rank=None)


def _has_parameters(module: nn.Module, name: str) -> bool:
    for part in name.split("."):
        child = getattr(module, part, None)
        if child is None:
            return False
        module = child
    return any(True for _ in module.parameters())


# ----------------------------------------------------------------------------------------------- styles of ours
def _distribute_parameters(
    module: nn.Module, mesh: DeviceMesh, placement: Placement, source: int | None, **others: Placement
) -> None:
    """Splits a module's own parameters alike, but for those named in `others`."""
    for name, parameter in list(module.named_parameters(recurse=False)):
        split = distribute_tensor(parameter.detach(), mesh, [others.get(name, placement)], src_data_rank=source)
        module.register_parameter(name, nn.Parameter(split, requires_grad=parameter.requires_grad))


class _Columns(ColwiseParallel):
    """A linear layer split by what comes out; of an adapter the second matrix is."""

    def _partition_linear_fn(self, name: str, module: nn.Module, device_mesh: DeviceMesh) -> None:
        _distribute_parameters(module, device_mesh, Shard(0), self.src_data_rank, lora_a=Replicate())


class _Rows(RowwiseParallel):
    """A linear layer split by what goes in; of an adapter the first matrix is."""

    def _partition_linear_fn(self, name: str, module: nn.Module, device_mesh: DeviceMesh) -> None:
        source = self.src_data_rank
        _distribute_parameters(module, device_mesh, Shard(1), source, bias=Replicate(), lora_b=Replicate())


class _Norm(SequenceParallel):
    """A norm on each rank's tokens (`Shard(1)`) or, alike on all ranks, on all of them; a local tensor comes in."""

    def __init__(self, layout: Placement, local_output: bool = True) -> None:
        super().__init__(use_local_output=local_output)
        self.sequence_sharding = (layout,)  # type: ignore[assignment]

    def _replicate_module_fn(self, name: str, module: nn.Module, device_mesh: DeviceMesh) -> None:
        _distribute_parameters(module, device_mesh, Replicate(), self.src_data_rank)  # which keeps frozen ones frozen


class _SplitRows(ParallelStyle):
    """A weight split by rows, and a module that does not use it itself."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        _distribute_parameters(module, device_mesh, Shard(0), self.src_data_rank)
        return module


class _WholeInput(ParallelStyle):
    """The module sees all tokens, as a DTensor; the gradients of its shards are summed on the way back."""

    def __init__(self, layout: Placement) -> None:
        super().__init__()
        self.layout = layout

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        def gather(_: nn.Module, inputs: tuple) -> tuple:
            sharded = DTensor.from_local(inputs[0], device_mesh, [self.layout], run_check=False)
            return (sharded.redistribute(placements=[Replicate()]), *inputs[1:])

        module.register_forward_pre_hook(gather)
        return module


class _AttentionInput(_WholeInput):
    """Attention sees all tokens, and of penalties that differ by head (ALiBi) those of its own heads."""

    def __init__(self, layout: Placement, heads: int) -> None:
        super().__init__(layout)
        self.heads = heads

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        super()._apply(module, device_mesh)
        local, place = self.heads // device_mesh.size(), device_mesh.get_local_rank()

        def take(_: nn.Module, inputs: tuple) -> tuple:
            x, rotary, mask, *rest = inputs
            return (x, rotary, mask_of_heads(mask, slice(place * local, (place + 1) * local)), *rest)

        module.register_forward_pre_hook(take)
        return module


class _HeadNorm(ParallelStyle):
    """A norm of queries or keys: of each head by itself, or of all heads of a token together, which are gathered."""

    def __init__(self, full_width: bool) -> None:
        super().__init__()
        self.full_width = full_width

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        _distribute_parameters(module, device_mesh, Replicate(), self.src_data_rank)
        layout = Shard(2)  # (B, L, heads * D) or (B, L, heads, D)

        def enter(_: nn.Module, inputs: tuple) -> tuple:
            own = DTensor.from_local(inputs[0], device_mesh, [layout], run_check=False)
            return (own.redistribute(placements=[Replicate()]) if self.full_width else own,)

        def leave(_: nn.Module, inputs: tuple, output: DTensor) -> Tensor:
            return output.redistribute(placements=[layout]).to_local()

        module.register_forward_pre_hook(enter)
        module.register_forward_hook(leave)
        return module


class _Whole(ParallelStyle):
    """Every rank computes the same from the same."""

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        _distribute_parameters(module, device_mesh, Replicate(), self.src_data_rank)
        return module


class _SharedHeads(ParallelStyle):
    """Key or value heads too few to split: every rank computes them all and takes those its query heads look at.

    What a rank sends back is then only its query heads' part of the gradient (`Partial`).
    """

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_size = attention.heads, attention.kv_heads, attention.head_size

    def local_heads(self, mesh: DeviceMesh) -> list[int]:
        """The key head of each of this rank's query heads; a single one where they all share it."""
        local, group = self.heads // mesh.size(), self.heads // self.kv_heads
        wanted = [head // group for head in range(mesh.get_local_rank() * local, (mesh.get_local_rank() + 1) * local)]
        return wanted[:1] if len(set(wanted)) == 1 else wanted

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        _distribute_parameters(module, device_mesh, Replicate(), self.src_data_rank)
        picked = self.local_heads(device_mesh)

        def take(_: nn.Module, inputs: tuple, output: DTensor) -> Tensor:
            heads = output.to_local(grad_placements=[Partial()])
            if self.kv_heads == 1:
                return heads
            return heads.unflatten(-1, (self.kv_heads, self.head_size))[..., picked, :].flatten(-2)

        module.register_forward_hook(take)
        return module
