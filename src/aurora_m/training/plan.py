"""What a recipe's training would take on devices that are not here: memory, traffic, hours, money, for several meshes.

Memory and traffic come from `rehearsal.py`, which runs the real step on fake tensors. Hours are arithmetic: the FLOP of
all tokens over the devices' peak times an assumed share of it (MFU), and the idle share of a pipeline.
"""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import torch

from aurora_m.model import Decoder, ModelConfig, count_parameters
from aurora_m.workspace import RecipeError, available_cores

from .config import ParallelConfig, PhaseConfig, TrainConfig
from .device import pipelined_micro_batch
from .devices import Device
from .parallel import check_model, check_phase
from .rehearsal import Layout, Usage, rehearse

# Of a device's memory; the driver, the libraries' buffers and what lies between allocations take the rest.
USABLE_SHARE = 0.92


@dataclass(frozen=True)
class Costs:
    """What all phases take on a mesh; nothing here is measured."""

    steps: int
    tokens: int
    flop: float
    days: float
    device_hours: float
    kilowatt_hours: float
    money: float | None


@dataclass(frozen=True)
class MeshPlan:
    """One way to lay the training over the devices: what its fullest rank holds and its busiest one sends."""

    layout: Layout
    usage: Usage  # of the rank with the highest peak
    sent_bytes: int  # in a step, by the rank that sends most
    fits: bool
    idle: float  # share of the time that pipeline ranks wait for each other
    costs: Costs


def plan_training(
    config: TrainConfig,
    model: ModelConfig,
    device: Device,
    devices: int,
    *,
    mfu: float = 0.4,
    price: float | None = None,
    meshes: list[ParallelConfig] | None = None,
    micro_batch: int | None = None,
) -> list[MeshPlan]:
    """Plans for several meshes, the best first: those that fit, by days, then by bytes sent.

    Memory and traffic are of the phase with the most tokens per step. `meshes` None: the recipe's own degrees where it
    gives any, and the usual ones. `micro_batch` None: the recipe's, else 1 sequence.

    Raises:
        RecipeError: no mesh divides model and phases; LoRA, which trains on one device; a share or price that is none.
    """
    if not 0 < mfu <= 1:
        raise RecipeError(f"--mfu {mfu}: expected a share of the peak above 0 and up to 1, such as 0.4")
    if devices < 1 or (price is not None and price < 0):
        raise RecipeError(f"--devices {devices}, --price {price}: expected 1 or more devices and a price of 0 or more")
    if config.lora and devices > 1:
        raise RecipeError("train.lora trains on one device; plan it with --devices 1, or leave it out")
    phase = max(config.phases, key=lambda one: (one.tokens_per_step, one.sequence_length))
    layouts, refused = [], ""
    for parallel in meshes or candidate_meshes(config.parallel, device, devices):
        try:
            layouts.append(_layout(config, model, parallel, devices, phase, micro_batch or config.micro_batch or 1))
        except RecipeError as error:
            refused = str(error)
            if meshes:
                raise
    if not layouts:
        raise RecipeError(f"no mesh of {devices} devices divides this training: {refused}")
    tasks = [(layout, rank) for layout in layouts for rank in _telling_ranks(layout)]
    usages = rehearse_all(tasks)
    plans = []
    for layout in layouts:
        own = [usage for (one, _), usage in zip(tasks, usages, strict=True) if one is layout]
        fullest = max(own, key=lambda usage: usage.peak)
        sent = max(sum(usage.sent.values()) for usage in own)
        idle = idle_share(layout)
        costs = training_costs(config, model, device, devices, mfu * (1 - idle), price)
        fits = fullest.peak <= USABLE_SHARE * device.memory_bytes
        plans.append(MeshPlan(layout, fullest, sent, fits, idle, costs))
    return sorted(plans, key=lambda plan: (not plan.fits, plan.costs.days, plan.sent_bytes, plan.usage.peak))


def rehearse_all(tasks: list[tuple[Layout, int]]) -> list[Usage]:
    """`rehearse` of layouts and ranks, each in a process of its own, because PyTorch keeps what it knows of a mesh."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["aurora_m.training.rehearsal"])
    workers = max(1, min(len(tasks), available_cores()))
    with ProcessPoolExecutor(workers, mp_context=context, max_tasks_per_child=1) as pool:
        return list(pool.map(_rehearse_quietly, *zip(*tasks, strict=True)))


def _rehearse_quietly(layout: Layout, rank: int) -> Usage:
    torch.set_num_threads(1)
    return rehearse(layout, rank)


# ----------------------------------------------------------------------------------------------- meshes
def candidate_meshes(own: ParallelConfig, device: Device, devices: int) -> list[ParallelConfig]:
    """The recipe's own mesh where it names one; data alone, with tensor in a machine, and with tensor and pipeline."""
    wanted = [own] if own != ParallelConfig() else []
    wanted += [ParallelConfig(tensor=tensor) for tensor in (1, 4, 8) if tensor <= device.per_machine]
    wanted += [ParallelConfig(pipeline=pipeline, tensor=4) for pipeline in (2, 4)]
    fitting: dict[tuple[int, int, int], ParallelConfig] = {}
    for one in wanted:
        if one is own or devices % (one.pipeline * one.tensor) == 0:
            fitting.setdefault(one.degrees(devices), one)
    return list(fitting.values())


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
    config: TrainConfig, model: ModelConfig, parallel: ParallelConfig, devices: int, phase: PhaseConfig, wanted: int
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
    sequences = phase.sequences_per_step // data
    micro_batch = pipelined_micro_batch(min(wanted, sequences), sequences, pipeline)
    dtype = torch.float32 if config.precision == "float32" else torch.bfloat16
    return Layout(
        model, parallel, devices, phase.sequence_length, micro_batch, -(-sequences // micro_batch), dtype, config.optimizer
    )


def _telling_ranks(layout: Layout) -> list[int]:
    """The first rank, which has the most micro batches on their way, and the last, which has the loss."""
    return [0] if layout.parallel.pipeline == 1 else [0, layout.ranks - 1]


def idle_share(layout: Layout) -> float:
    """The share of a step that a pipeline's ranks wait: (p - 1) / (m v + p - 1) (Narayanan et al. 2021)."""
    waiting = layout.parallel.pipeline - 1
    return waiting / (layout.micro_batches * layout.parallel.stages_per_rank + waiting)


# ----------------------------------------------------------------------------------------------- costs
def flop_per_token(model: ModelConfig, sequence_length: int) -> float:
    """6N + 12 x layers x (heads x head size) x sequence length (Chowdhery et al. 2022); N is all weights.

    The attention term is that of the whole square of scores, as is usual, though half of it is masked.
    """
    with torch.device("meta"):
        weights = count_parameters(Decoder(model))
    return 6 * weights + 12 * model.layers * model.heads * model.head_size * sequence_length


def training_costs(
    config: TrainConfig, model: ModelConfig, device: Device, devices: int, mfu: float, price: float | None
) -> Costs:
    """Of all phases; energy is that of the devices alone, at their limit."""
    tokens = {phase.name: phase.steps * phase.tokens_per_step for phase in config.phases}
    flop = sum(tokens[phase.name] * flop_per_token(model, phase.sequence_length) for phase in config.phases)
    device_hours = flop / (device.bf16_flops * mfu) / 3600
    return Costs(
        steps=sum(phase.steps for phase in config.phases),
        tokens=sum(tokens.values()),
        flop=flop,
        days=device_hours / devices / 24,
        device_hours=device_hours,
        kilowatt_hours=device_hours * device.watts / 1000,
        money=None if price is None else device_hours * price,
    )
