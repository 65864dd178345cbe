"""Accelerators as data: what their public data sheets say of memory, speed and power."""

from dataclasses import dataclass

from aurora_m.workspace import RecipeError


@dataclass(frozen=True)
class Device:
    """One device as PyTorch counts them.

    `memory_bytes` as sold (10^9 each GB); `bf16_flops` the dense peak of matrix products in FLOP/s, without sparsity;
    `watts` the board's limit; `per_machine` the usual number in one machine, joined by the fast links.
    """

    name: str
    memory_bytes: int
    bf16_flops: float
    watts: int
    per_machine: int
    source: str


def _device(name: str, gigabytes: int, teraflops: float, watts: int, per_machine: int, source: str) -> Device:
    return Device(name, gigabytes * 10**9, teraflops * 1e12, watts, per_machine, source)


DEVICES = {
    device.name: device
    for device in (
        _device("a100", 80, 312, 400, 8, "NVIDIA A100 Tensor Core GPU data sheet, SXM 80 GB"),
        _device("a100-40gb", 40, 312, 400, 8, "NVIDIA A100 Tensor Core GPU data sheet, SXM 40 GB"),
        _device("h100", 80, 989.5, 700, 8, "NVIDIA H100 Tensor Core GPU data sheet, SXM"),
        _device("h100-pcie", 80, 756.5, 350, 8, "NVIDIA H100 Tensor Core GPU data sheet, PCIe 80 GB"),
        _device("h200", 141, 989.5, 700, 8, "NVIDIA H200 Tensor Core GPU data sheet, SXM"),
        _device("b200", 180, 2250, 1000, 8, "NVIDIA DGX B200 data sheet, one of its eight"),
        _device("l40s", 48, 362, 350, 8, "NVIDIA L40S data sheet"),
        _device("mi250x", 64, 191.5, 280, 8, "AMD Instinct MI250X data sheet; one of a module's two dies, half of all"),
        _device("mi300x", 192, 1307.4, 750, 8, "AMD Instinct MI300X data sheet"),
    )
}


def find_device(name: str) -> Device:
    """The device of that name.

    Raises:
        RecipeError: the table has none.
    """
    if name.lower() not in DEVICES:
        raise RecipeError(f"--device {name!r} is not in the table; known are {', '.join(sorted(DEVICES))}")
    return DEVICES[name.lower()]
