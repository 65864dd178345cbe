"""Accelerators as data: what their makers' data sheets say of memory, speed, power and links.

MFU needs the peak of the device that is really there (`find_device`); a plan needs all of it (`known_device`).
"""

import re
from dataclasses import dataclass

from aurora_m.workspace import RecipeError


@dataclass(frozen=True)
class Device:
    """One device as PyTorch counts them.

    `memory_bytes` as sold (10^9 each GB). `bf16_flops`: the dense peak of matrix products in FLOP/s, accumulated in
    float32, without sparsity (data sheets often print twice as much, with it). `watts`: the board's limit.
    `link_bytes`: a second, in one direction, to the others of its machine. `per_machine`: the usual number in one.
    """

    name: str
    memory_bytes: int
    bf16_flops: float
    watts: int | None
    link_bytes: float
    per_machine: int
    source: str
    reported: tuple[str, ...] = ()  # by torch.cuda.get_device_name, without the maker's name


def _device(
    name: str,
    gigabytes: float,
    teraflops: float,
    watts: int,
    link_gigabytes: float,
    per_machine: int,
    source: str,
    *reported: str,
) -> Device:
    return Device(
        name, round(gigabytes * 1e9), teraflops * 1e12, watts, link_gigabytes * 1e9, per_machine, source, reported
    )


# Sheets that print the peak with sparsity are halved: the tensor cores of these devices count it double.
_NVIDIA = [
    _device(
        "a100-40gb", 40, 312, 400, 300, 8, "NVIDIA A100 data sheet, SXM 40 GB; NVLink 600 GB/s both ways",
        "A100-SXM4-40GB",
    ),
    _device(
        "a100", 80, 312, 400, 300, 8, "NVIDIA A100 data sheet, SXM 80 GB; NVLink 600 GB/s both ways", "A100-SXM4-80GB"
    ),
    _device("a100-pcie-40gb", 40, 312, 250, 32, 8, "NVIDIA A100 data sheet, PCIe 40 GB; PCIe 4.0", "A100-PCIE-40GB"),
    _device("a100-pcie", 80, 312, 300, 32, 8, "NVIDIA A100 data sheet, PCIe 80 GB; PCIe 4.0", "A100 80GB PCIe"),
    _device(
        "h100", 80, 989.5, 700, 450, 8, "NVIDIA H100 data sheet, SXM, half of 1,979; NVLink 900 GB/s both ways",
        "H100 80GB HBM3",
    ),
    _device(
        "h100-pcie", 80, 756.5, 350, 64, 8, "NVIDIA H100 data sheet, PCIe 80 GB, half of 1,513; PCIe 5.0", "H100 PCIe"
    ),
    _device("h100-nvl", 94, 835.5, 400, 64, 8, "NVIDIA H100 data sheet, NVL, half of 1,671; PCIe 5.0", "H100 NVL"),
    _device(
        "h200", 141, 989.5, 700, 450, 8, "NVIDIA H200 data sheet, SXM, half of 1,979; NVLink 900 GB/s both ways", "H200"
    ),
    _device("h200-nvl", 141, 835.5, 600, 64, 8, "NVIDIA H200 data sheet, NVL, half of 1,671; PCIe 5.0", "H200 NVL"),
    _device(
        "b200", 180, 2250, 1000, 900, 8,
        "NVIDIA HGX B200 data sheet, one of eight, half of 4,500; NVLink 1.8 TB/s both ways", "B200",
    ),
    _device("l40s", 48, 362, 350, 32, 8, "NVIDIA L40S data sheet; PCIe 4.0", "L40S"),
    _device("rtx-3090", 24, 71, 350, 32, 1, "NVIDIA Ampere GA102 white paper; PCIe 4.0", "GeForce RTX 3090"),
    _device("rtx-4090", 24, 165.2, 450, 32, 1, "NVIDIA Ada white paper; PCIe 4.0", "GeForce RTX 4090"),
]  # fmt: skip
_AMD = [
    _device(
        "mi250x", 64, 191.5, 280, 50, 8,
        "AMD Instinct MI250X data sheet: one of a module's two dies, which PyTorch counts as a device each, so half of "
        "128 GB, 383 TFLOP/s and 560 W; one Infinity Fabric link between modules", "Instinct MI250X",
    ),
    _device(
        "mi300x", 192, 1307.4, 750, 448, 8,
        "AMD Instinct MI300X data sheet; seven Infinity Fabric links of 64 GB/s", "Instinct MI300X",
    ),
    _device(
        "mi325x", 256, 1307.4, 1000, 448, 8,
        "AMD Instinct MI325X data sheet; seven Infinity Fabric links of 64 GB/s", "Instinct MI325X",
    ),
]  # fmt: skip
DEVICES = {device.name: device for device in _NVIDIA + _AMD}
_REPORTED = {reported.casefold(): device for device in DEVICES.values() for reported in device.reported}


def find_device(reported: str) -> Device | None:
    """The device that `torch.cuda.get_device_name` calls so; None for one that is not in the table.

    The whole name must be known: an `NVIDIA H200` is no H100, a `GH200 480GB` no H200, and a MIG slice no whole device.
    """
    return _REPORTED.get(re.sub(r"^(NVIDIA|AMD)\s+", "", reported.strip(), flags=re.IGNORECASE).casefold())


def known_device(
    name: str,
    *,
    memory_gigabytes: float | None = None,
    peak_teraflops: float | None = None,
    watts: int | None = None,
) -> Device:
    """The device of that name in the table, with what is given by hand in the place of its figures.

    Raises:
        RecipeError: the table has none, and memory and peak are not both given; or one of them is not above 0.
    """
    given = {"--memory-gb": memory_gigabytes, "--peak-tflops": peak_teraflops, "--watts": watts}
    for option, value in given.items():
        if value is not None and not value > 0:
            raise RecipeError(f"{option} {value}: expected a number above 0")
    device = DEVICES.get(name.lower())
    if device is None and (memory_gigabytes is None or peak_teraflops is None):
        raise RecipeError(
            f"--device {name!r} is not in the table; known are {', '.join(sorted(DEVICES))}. For another one give "
            "--memory-gb and --peak-tflops (dense bf16, without sparsity) too"
        )
    by_hand = [f"{option} {value:g}" for option, value in given.items() if value is not None]
    return Device(
        name if device is None else device.name,
        round(memory_gigabytes * 1e9) if memory_gigabytes else device.memory_bytes,  # type: ignore[union-attr]
        peak_teraflops * 1e12 if peak_teraflops else device.bf16_flops,  # type: ignore[union-attr]
        watts or (device.watts if device else None),
        # PCIe 4.0 with 16 lanes: what any machine has, where nothing better is known.
        device.link_bytes if device else 32e9,
        device.per_machine if device else 8,
        "; ".join([*([device.source] if device else []), *by_hand]),
    )
