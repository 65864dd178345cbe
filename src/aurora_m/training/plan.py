"""What a recipe's training would take on devices that are not here: memory, traffic, hours, money, for several meshes.

Memory and traffic come from `rehearsal.py`, which runs the real step on fake tensors; the rest is `costs.py`.
"""

import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import torch

from aurora_m.model import ModelConfig
from aurora_m.workspace import RecipeError, available_cores

from .config import ParallelConfig, PhaseConfig, TrainConfig
from .costs import Costs, computing_seconds, idle_share, parameters_of, sending_seconds, training_costs
from .device import auto_micro_batch, pipelined_micro_batch
from .devices import DEVICES, Device
from .parallel import check_model, check_phase
from .rehearsal import Layout, Usage, rehearse

# Of a device's memory; the driver, the libraries' buffers and what lies between allocations take the rest.
USABLE_SHARE = 0.92


@dataclass(frozen=True)
class MeshPlan:
    """One way to lay the training over the devices: what the fullest rank holds, the busiest sends, what it costs."""

    layout: Layout
    usage: Usage  # of the rank with the highest peak
    sent: dict[str, int]  # bytes in a step by dimension of the mesh, of the rank that sends most
    fits: bool
    idle: float  # share of the time that pipeline ranks wait for each other
    computing_seconds: float  # of a step, the waiting included
    sending_seconds: float  # of a step
    costs: Costs

    @property
    def sent_bytes(self) -> int:
        return sum(self.sent.values())


@dataclass(frozen=True)
class Plan:
    """The meshes, the best first, those that cannot be (as text, with the reason), and what was assumed."""

    meshes: list[MeshPlan]
    refused: list[tuple[str, str]]
    device: Device
    devices: int
    parameters: int
    mfu: float
    network_bytes: float
    price: float | None


def plan_training(
    config: TrainConfig,
    model: ModelConfig,
    device: Device,
    devices: int,
    *,
    mfu: float = 0.4,
    price: float | None = None,
    network_bytes: float = 25e9,
    meshes: list[ParallelConfig] | None = None,
    micro_batch: int | None = None,
) -> Plan:
    """Plans several meshes and ranks them: those that fit, by days, then by bytes sent.

    Memory and traffic are of the phase with the most tokens per step.

    Args:
        price: of one device for one hour.
        network_bytes: a second between machines, for each device and in one direction.
        meshes: None: the recipe's own degrees where it gives any, and the usual ones.
        micro_batch: None: the recipe's, else what training would choose on such a device.

    Raises:
        RecipeError: no mesh divides model and phases, or a given one does not; a figure that is none.
    """
    _check(config, device, devices, mfu, price, network_bytes)
    phase = max(config.phases, key=lambda one: (one.tokens_per_step, one.sequence_length))
    layouts, refused = [], []
    for parallel in meshes or candidate_meshes(config.parallel, device, devices):
        try:
            layouts.append(_layout(config, model, parallel, device, devices, phase, micro_batch))
        except RecipeError as error:
            if meshes:
                raise
            refused.append((_mesh_text(parallel, devices), str(error)))
    if not layouts:
        raise RecipeError(f"no mesh of {devices} devices divides this training: {refused[0][1]}")
    tasks = [(layout, rank) for layout in layouts for rank in _telling_ranks(layout)]
    usages = rehearse_all(tasks)
    planned = []
    for layout in layouts:
        own = [usage for (one, _), usage in zip(tasks, usages, strict=True) if one is layout]
        planned.append(_mesh_plan(config, layout, own, phase, device, mfu, price, network_bytes))
    planned.sort(key=lambda plan: (not plan.fits, plan.costs.days, plan.sent_bytes, plan.usage.peak))
    return Plan(planned, refused, device, devices, parameters_of(model), mfu, network_bytes, price)


def _mesh_text(parallel: ParallelConfig, devices: int) -> str:
    data = max(1, devices // (parallel.pipeline * parallel.tensor)) if parallel.data == "auto" else parallel.data
    return f"{parallel.pipeline} x {data} x {parallel.tensor}"


def _check(
    config: TrainConfig, device: Device, devices: int, mfu: float, price: float | None, network_bytes: float
) -> None:
    if not 0 < mfu <= 1:
        raise RecipeError(f"--mfu {mfu}: expected a share of the peak above 0 and up to 1, such as 0.4")
    if devices < 1:
        raise RecipeError(f"--devices {devices}: expected 1 or more")
    if price is not None and price < 0:
        raise RecipeError(f"--price-per-gpu-hour {price}: expected 0 or more")
    if not network_bytes > 0:
        raise RecipeError(f"--network-gbit {network_bytes * 8 / 1e9:g}: expected more than 0")
    if config.lora:
        raise RecipeError("train.lora: a plan is of training all weights; leave it out with --set train.lora=null")
    known = DEVICES.get(device.name)
    if config.precision == "float32" and known is not None and known.bf16_flops == device.bf16_flops:
        raise RecipeError(
            f"train.precision float32: the table knows {device.name}'s bf16 peak only; give that of float32 products "
            "with --peak-tflops, or plan with --set train.precision=bfloat16"
        )


def _mesh_plan(
    config: TrainConfig,
    layout: Layout,
    usages: list[Usage],
    phase: PhaseConfig,
    device: Device,
    mfu: float,
    price: float | None,
    network_bytes: float,
) -> MeshPlan:
    fullest = max(usages, key=lambda usage: usage.peak)
    busiest = max(usages, key=lambda usage: sum(usage.sent.values()))
    idle = idle_share(layout.degrees, layout.micro_batches, layout.parallel.stages_per_rank)
    flops = device.bf16_flops * mfu * (1 - idle)
    computing = computing_seconds(layout.model, phase.sequence_length, phase.tokens_per_step, layout.ranks, flops)
    sending = sending_seconds(busiest.sent, layout.degrees, device, network_bytes)
    # Of the other phases sending is taken to be the same share.
    reached = flops * min(1.0, computing / sending) if sending else flops
    return MeshPlan(
        layout=layout,
        usage=fullest,
        sent=busiest.sent,
        fits=fullest.peak <= USABLE_SHARE * device.memory_bytes,
        idle=idle,
        computing_seconds=computing,
        sending_seconds=sending,
        costs=training_costs(config, layout.model, device, layout.ranks, reached, price),
    )


def rehearse_all(tasks: list[tuple[Layout, int]]) -> list[Usage]:
    """`rehearse` of layouts and ranks, each in a process of its own, because PyTorch keeps what it knows of a mesh."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["aurora_m.training.rehearsal"])
    workers = max(1, min(len(tasks), available_cores()))
    with ProcessPoolExecutor(workers, mp_context=context, max_tasks_per_child=1) as pool:
        return list(pool.map(_rehearse_quietly, *zip(*tasks, strict=True)))


def _rehearse_quietly(layout: Layout, rank: int) -> Usage:
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # PyTorch's, of FSDP's views and of fake tensors; nothing a plan's reader can act on
        return rehearse(layout, rank)


# ----------------------------------------------------------------------------------------------- meshes
def candidate_meshes(own: ParallelConfig, device: Device, devices: int) -> list[ParallelConfig]:
    """The recipe's own mesh where it names one; data alone, with tensor in a machine, and with tensor and pipeline."""
    usual = [ParallelConfig(tensor=tensor) for tensor in (1, 4, 8) if tensor <= device.per_machine]
    usual += [ParallelConfig(pipeline=pipeline, tensor=4) for pipeline in (2, 4)]
    named = [own] if own != ParallelConfig() else []
    meshes = {_mesh_text(one, devices): one for one in usual if devices % (one.pipeline * one.tensor) == 0}
    return [*named, *(one for text, one in meshes.items() if text not in [_mesh_text(one, devices) for one in named])]


def parse_mesh(text: str, devices: int) -> ParallelConfig:
    """A mesh written as pipeline x data x tensor, such as 4x8x4.

    Raises:
        RecipeError: it is no such thing, or has another number of devices.
    """
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdigit() and int(part) for part in parts):
        raise RecipeError(f"--mesh {text!r}: expected pipeline x data x tensor, such as 4x8x4")
    pipeline, data, tensor = map(int, parts)
    parallel = ParallelConfig(pipeline=pipeline, data=data, tensor=tensor)
    parallel.degrees(devices)
    return parallel


def _layout(
    config: TrainConfig,
    model: ModelConfig,
    parallel: ParallelConfig,
    device: Device,
    devices: int,
    phase: PhaseConfig,
    wanted: int | None,
) -> Layout:
    """Raises RecipeError where a mesh does not divide model or phases."""
    pipeline, data, _ = parallel.degrees(devices)
    check_model(model, parallel, devices)
    for one in config.phases:
        check_phase(one, parallel, devices)
        if one.sequence_length > model.max_positions:
            raise RecipeError(
                f"phase {one.name}: sequence_length {one.sequence_length} is more than the model's "
                f"{model.max_positions} positions"
            )
    sequences, dtype = phase.sequences_per_step // data, _dtype(config)
    wanted = wanted or config.micro_batch
    if wanted is None:
        there = torch.device("cuda")
        wanted = auto_micro_batch(
            model,
            sequences,
            phase.sequence_length,
            there,
            dtype,
            config.activation_checkpointing,
            memory_bytes=device.memory_bytes,
        )
    micro_batch = pipelined_micro_batch(min(wanted, sequences), sequences, pipeline)
    return Layout(
        model,
        parallel,
        devices,
        phase.sequence_length,
        micro_batch,
        -(-sequences // micro_batch),
        dtype,
        config.optimizer,
        config.activation_checkpointing,
    )


def _dtype(config: TrainConfig) -> torch.dtype:
    return torch.float32 if config.precision == "float32" else torch.bfloat16


def _telling_ranks(layout: Layout) -> list[int]:
    """The first rank, which has the most micro batches on their way, and the last, which has the loss."""
    return [0] if layout.parallel.pipeline == 1 else [0, layout.ranks - 1]
