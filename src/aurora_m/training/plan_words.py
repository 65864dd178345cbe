"""A plan for people, in tables that fit 80 columns, and for programs, as JSON."""

import json
from dataclasses import asdict

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from aurora_m.workspace import format_count

from .plan import USABLE_SHARE, MeshPlan, Plan


def describe_plan(plan: Plan) -> RenderableType:
    """The ranked meshes with what they cost, their memory by kind, their traffic, and in words what was assumed."""
    return Group(
        _costs(plan), *_misfits(plan), "", _memory(plan), _step(plan), *(Text(line) for line in _grounds(plan))
    )


def plan_to_json(plan: Plan) -> str:
    """All of a plan's figures in full, in bytes, seconds, FLOP."""
    device = {name: value for name, value in asdict(plan.device).items() if name != "reported"}
    meshes = [
        {
            "rank": number,
            "pipeline": one.layout.degrees[0],
            "data": one.layout.degrees[1],
            "tensor": one.layout.degrees[2],
            "sequence": one.layout.parallel.sequence,
            "stages_per_rank": one.layout.parallel.stages_per_rank,
            "micro_batch": one.layout.micro_batch,
            "micro_batches": one.layout.micro_batches,
            "fits": one.fits,
            "bytes": _kinds(one) | {"peak": one.usage.peak},
            "sent_bytes_per_step": one.sent | {"all": one.sent_bytes},
            "idle_share": one.idle,
            "computing_seconds_per_step": one.computing_seconds,
            "sending_seconds_per_step": one.sending_seconds,
            **asdict(one.costs),
        }
        for number, one in enumerate(plan.meshes, start=1)
    ]
    facts = {
        "device": device,
        "devices": plan.devices,
        "parameters": plan.parameters,
        "mfu_assumed": plan.mfu,
        "network_bytes_per_second": plan.network_bytes,
        "price_per_device_hour": plan.price,
        "usable_bytes": USABLE_SHARE * plan.device.memory_bytes,
        "meshes": meshes,
        "refused": [{"mesh": mesh, "reason": reason} for mesh, reason in plan.refused],
    }
    return json.dumps(facts, indent=2)


def _kinds(one: MeshPlan) -> dict[str, int]:
    usage = one.usage
    return {
        "weights": usage.weights,
        "gradients": usage.gradients,
        "optimizer": usage.optimizer,
        "activations": usage.activations,
    }


# ----------------------------------------------------------------------------------------------- tables
def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1))
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 1 else "right", no_wrap=True)
    return table


def _costs(plan: Plan) -> Table:
    first = plan.meshes[0].costs
    table = _table(
        f"{plan.devices} x {plan.device.name}: {first.steps:,} steps, {format_count(first.tokens)} tokens, "
        f"{format_count(plan.parameters)} weights",
        "#", "mesh", "fits", "peak GB", "s/step", "days", "GPU-hours", "kWh", "money",
    )  # fmt: skip
    for number, one in enumerate(plan.meshes, start=1):
        costs = one.costs
        table.add_row(
            str(number), _mesh(one), "yes" if one.fits else "NO", _gigabytes(one.usage.peak),
            _figure(max(one.computing_seconds, one.sending_seconds)), _figure(costs.days),
            _figure(costs.device_hours), _figure(costs.kilowatt_hours), _figure(costs.money),
        )  # fmt: skip
    return table


def _memory(plan: Plan) -> Table:
    memory = plan.device.memory_bytes
    table = _table(
        "Memory of the fullest rank, GB (10^9 bytes)",
        "#", "mesh", "weights", "gradients", "optimizer", "activations", "peak", f"of {memory / 1e9:g}",
    )  # fmt: skip
    for number, one in enumerate(plan.meshes, start=1):
        figures = [*_kinds(one).values(), one.usage.peak]
        table.add_row(str(number), _mesh(one), *map(_gigabytes, figures), f"{one.usage.peak / memory:.0%}")
    return table


def _step(plan: Plan) -> Table:
    table = _table(
        "A step: sequences at once x times, and what the busiest rank sends",
        "#", "mesh", "batches", "computing s", "idle", "sending GB", "sending s",
    )  # fmt: skip
    for number, one in enumerate(plan.meshes, start=1):
        layout = one.layout
        table.add_row(
            str(number), _mesh(one), f"{layout.micro_batch} x {layout.micro_batches}",
            _figure(one.computing_seconds), f"{one.idle:.0%}", _gigabytes(one.sent_bytes),
            _figure(one.sending_seconds),
        )  # fmt: skip
    return table


def _mesh(one: MeshPlan) -> str:
    stages = one.layout.parallel.stages_per_rank
    return " x ".join(map(str, one.layout.degrees)) + (f" ({stages} stages)" if stages > 1 else "")


# ----------------------------------------------------------------------------------------------- words
def _misfits(plan: Plan) -> list[Text]:
    """Why meshes do not fit, or cannot be."""
    usable, lines = USABLE_SHARE * plan.device.memory_bytes, []
    for number, one in enumerate(plan.meshes, start=1):
        if not one.fits:
            kinds = _kinds(one)
            largest = max(kinds, key=lambda kind: kinds[kind])
            lines.append(
                f"{number} does not fit: its peak is {_gigabytes(one.usage.peak - usable)} GB above the usable "
                f"{_gigabytes(usable)} GB, and most of it is {largest} ({_gigabytes(kinds[largest])} GB)."
            )
    lines += [f"{mesh} cannot be: {reason}." for mesh, reason in plan.refused]
    if not plan.meshes[0].fits:
        lines.append("None of these meshes fits; try a smaller --micro-batch, more devices, or another mesh (--mesh).")
    return [Text(line) for line in lines]


def _grounds(plan: Plan) -> list[str]:
    first, device = plan.meshes[0], plan.device
    watts = "unknown (--watts)" if device.watts is None else f"{device.watts} W a device, without hosts and cooling"
    return [
        "mesh: pipeline x data x tensor. Ranked: what fits, then days, then bytes sent.",
        f"Counted: the real step of {first.layout.sequence_length}-token sequences, all {first.layout.model.layers} "
        "layers, run for one rank on tensors without numbers. Extrapolated: the traffic of further micro batches, "
        "which is that of the last one run.",
        f"Usable: {USABLE_SHARE:.0%} of {device.memory_bytes / 1e9:g} GB; driver and libraries take the rest.",
        f"Assumed: MFU {plan.mfu:.0%} (--mfu) of {device.bf16_flops / 1e12:g} TFLOP/s dense bf16, with "
        f"6N + 12 x layers x heads x head size x length FLOP a token ({first.costs.flop:.3g} in all). Published runs "
        "on one machine reach 39% (torchtitan) to 47% (nanotron); measure yours, days and money go with it.",
        f"Assumed: links of {device.link_bytes / 1e9:g} GB/s among {device.per_machine} devices of a machine, and "
        f"{plan.network_bytes * 8 / 1e9:g} Gbit/s a device between machines (--network-gbit), at full speed, while "
        "computing goes on; where sending takes longer, it is the step's time.",
        f"Device: {device.source}. kWh: {watts}." + (" money: --price-per-gpu-hour." if plan.price is None else ""),
    ]


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:,.1f}" if count >= 1e8 else f"{count / 1e9:.3f}"


def _figure(value: float | None) -> str:
    """As short as a column; --json has all digits."""
    if value is None:
        return "-"
    if 0 < value < 0.001:
        return "<0.001"
    if value >= 1e6:
        return f"{value / 1e6:,.1f}M"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
