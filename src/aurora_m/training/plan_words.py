"""A plan for people: one table of meshes, and what its figures rest on."""

from rich.console import Group, RenderableType
from rich.table import Table

from aurora_m.workspace import format_count

from .devices import Device
from .plan import USABLE_SHARE, MeshPlan


def describe_plans(plans: list[MeshPlan], device: Device, devices: int, mfu: float) -> RenderableType:
    """The ranked meshes, and in words what was run, counted and assumed."""
    table = Table(
        "#", "pipeline x data x tensor", "weights", "gradients", "optimizer", "activations", "peak", "fits",
        "sent/step", "idle", "days", title=f"Per rank, in GB (10^9 bytes), of {devices} x {device.name}",
        title_justify="left",
    )  # fmt: skip
    for number, plan in enumerate(plans, start=1):
        usage, mesh = plan.usage, " x ".join(map(str, plan.layout.degrees))
        kinds = (usage.weights, usage.gradients, usage.optimizer, usage.activations, usage.peak)
        own = f" ({plan.layout.parallel.stages_per_rank} stages)" if plan.layout.parallel.stages_per_rank > 1 else ""
        table.add_row(
            str(number), mesh + own, *map(_gigabytes, kinds), "yes" if plan.fits else "NO",
            _gigabytes(plan.sent_bytes), f"{plan.idle:.0%}", f"{plan.costs.days:,.2f}",
        )  # fmt: skip
    return Group(table, _cost_table(plans), *_grounds(plans, device, mfu))


def _cost_table(plans: list[MeshPlan]) -> Table:
    table = Table("#", "steps", "tokens", "GPU-hours", "days", "kWh", "money", title="All phases", title_justify="left")
    for number, plan in enumerate(plans, start=1):
        costs = plan.costs
        money = "no --price" if costs.money is None else f"{costs.money:,.0f}"
        table.add_row(
            str(number), f"{costs.steps:,}", format_count(costs.tokens), f"{costs.device_hours:,.0f}",
            f"{costs.days:,.2f}", f"{costs.kilowatt_hours:,.0f}", money,
        )  # fmt: skip
    return table


def _grounds(plans: list[MeshPlan], device: Device, mfu: float) -> list[str]:
    first = plans[0]
    layout, memory = first.layout, device.memory_bytes / 1e9
    lines = [
        f"Counted: the real training step, all {layout.model.layers} layers, run for one rank on fake tensors; nothing "
        "is extrapolated but the traffic of further micro batches, which is that of the last one run.",
        f"Steps of {layout.sequence_length}-token sequences; micro batch "
        + ", ".join(sorted({f"{plan.layout.micro_batch} of {plan.layout.micro_batches}" for plan in plans}))
        + " (sequences at once, times per step and data rank; --micro-batch).",
        f"fits: the peak is under {USABLE_SHARE:.0%} of {memory:g} GB ({device.source}).",
        "sent: what the busiest rank sends in a step, collectives going around rings.",
        f"Assumed: MFU {mfu:.0%} (--mfu) of {device.bf16_flops / 1e12:g} TFLOP/s dense bf16 while a pipeline rank is "
        "not idle, with 6N + 12 x layers x heads x head size x sequence length FLOP a token, N all weights: "
        f"{first.costs.flop:.3g} FLOP in all.",
        f"kWh: {device.watts} W a device, without hosts and cooling. Traffic is not in the hours; measure before you buy.",
    ]
    if not first.fits:
        lines.insert(0, "[bold]None of these meshes fits this device's memory.[/bold]")
    return ["", *lines]


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:,.1f}" if count >= 1e8 else f"{count / 1e9:.3f}"
