"""What training costs, by arithmetic: FLOP, time in which they are computed or sent, energy, money.

Nothing here is measured. Computing takes the FLOP of all tokens over an assumed share of the devices' peak (MFU), and
a pipeline's ranks wait for each other besides. Sending hides behind computing; where it takes longer, it is the time.
"""

from dataclasses import dataclass

import torch

from aurora_m.model import Decoder, ModelConfig, count_parameters

from .config import TrainConfig
from .devices import Device


@dataclass(frozen=True)
class Costs:
    """What all phases take on a mesh. `money` and `kilowatt_hours` are None where price or watts are not known."""

    steps: int
    tokens: int
    flop: float
    days: float
    device_hours: float
    kilowatt_hours: float | None
    money: float | None


def parameters_of(model: ModelConfig) -> int:
    """All weights of a decoder; a tied head counts once."""
    with torch.device("meta"):
        return count_parameters(Decoder(model))


def flop_per_token(model: ModelConfig, sequence_length: int) -> float:
    """6N + 12 x layers x (heads x head size) x sequence length (Chowdhery et al. 2022); N is all weights.

    The attention term is that of the whole square of scores, as is usual, though half of it is masked.
    """
    return 6 * parameters_of(model) + 12 * model.layers * model.heads * model.head_size * sequence_length


def idle_share(degrees: tuple[int, int, int], micro_batches: int, stages_per_rank: int) -> float:
    """The share of a step that a pipeline's ranks wait: (p - 1) / (m v + p - 1) (Narayanan et al. 2021)."""
    waiting = degrees[0] - 1
    return waiting / (micro_batches * stages_per_rank + waiting)


def sending_seconds(sent: dict[str, int], degrees: tuple[int, int, int], device: Device, network_bytes: float) -> float:
    """How long a rank sends in a step, at the full speed of the links its neighbours are reached by.

    Ranks lie in machines in the order pipeline, data, tensor, the last closest. Of a ring over several machines each
    machine passes on what all of its ranks in the ring send, and all of them have a network link each: k ranks of a
    ring in a machine send k times as fast as one.

    Args:
        sent: bytes by dimension of the mesh.
        network_bytes: a second and device, in one direction.
    """
    pipeline, data, tensor = degrees
    seconds = 0.0
    for name, degree, stride in (("tensor", tensor, 1), ("data", data, tensor), ("pipeline", pipeline, tensor * data)):
        together = min(degree, max(1, device.per_machine // stride))
        if name == "pipeline":
            together = min(together, 1)  # one neighbour hands to the next; there is no ring
        in_machine = stride * degree <= device.per_machine
        speed = device.link_bytes if in_machine else min(device.link_bytes, network_bytes * together)
        seconds += sent.get(name, 0) / speed
    return seconds


def computing_seconds(model: ModelConfig, sequence_length: int, tokens: int, devices: int, flops: float) -> float:
    """How long `devices` of so many FLOP/s compute on a step of `tokens`."""
    return tokens * flop_per_token(model, sequence_length) / (devices * flops)


def training_costs(
    config: TrainConfig, model: ModelConfig, device: Device, devices: int, flops: float, price: float | None
) -> Costs:
    """Of all phases on devices that reach `flops` each; energy is that of the devices alone, at their limit."""
    tokens = {phase.name: phase.step_tokens for phase in config.phases}
    flop = sum(tokens[phase.name] * flop_per_token(model, phase.sequence_length) for phase in config.phases)
    device_hours = flop / flops / 3600
    return Costs(
        steps=sum(phase.steps for phase in config.phases),
        tokens=sum(tokens.values()),
        flop=flop,
        days=device_hours / devices / 24,
        device_hours=device_hours,
        kilowatt_hours=None if device.watts is None else device_hours * device.watts / 1000,
        money=None if price is None else device_hours * price,
    )
