"""Joules that training takes, by the counters of GPUs (NVML), processors and memory (RAPL), where they can be read."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import torch

from .job import local_rank

NOT_MEASURED = "not measured"
_POWERCAP = Path("/sys/class/powercap")
_PERIOD_SECONDS = 60.0  # RAPL counters wrap around after some minutes at full power, and must be read before
_JOULES_PER_KWH = 3.6e6


class Counter(Protocol):
    """A counter of joules; `kind` is gpu or cpu."""

    kind: str

    def joules(self) -> float:
        """Since the counter was opened."""
        ...


class GpuCounter:
    """NVML's total energy of a device (millijoules, from Volta on)."""

    kind = "gpu"

    def __init__(self, read_millijoules: Callable[[], int]) -> None:
        self._read = read_millijoules
        self._start = read_millijoules()

    def joules(self) -> float:
        return (self._read() - self._start) / 1e3


class RaplCounter:
    """A domain of RAPL: microjoules in `energy_uj`, which starts again at 0 after `max_energy_range_uj`.

    Linux, Documentation/power/powercap/powercap.rst.
    """

    kind = "cpu"

    def __init__(self, folder: Path) -> None:
        self._file = folder / "energy_uj"
        self._range = int((folder / "max_energy_range_uj").read_text())
        self._last, self._microjoules = int(self._file.read_text()), 0

    def joules(self) -> float:
        now = int(self._file.read_text())
        self._microjoules += now - self._last if now >= self._last else self._range - self._last + now
        self._last = now
        return self._microjoules / 1e6


class EnergyMeter:
    """Sums some counters. One that cannot be read any more counts up to where it could."""

    def __init__(self, counters: Iterable[Counter] = ()) -> None:
        self._counters = dict.fromkeys(counters, 0.0)
        self._taken: dict[str, float] = {}
        self._sampled = time.monotonic()

    def sample(self) -> None:
        """Reads the counters where it is time again; costs nothing between."""
        if self._counters and time.monotonic() - self._sampled > _PERIOD_SECONDS:
            self._read()

    def take(self) -> dict[str, float]:
        """Joules by kind since the last call."""
        self._read()
        taken, self._taken = self._taken, {}
        return taken

    def _read(self) -> None:
        self._sampled = time.monotonic()
        for counter, before in list(self._counters.items()):
            try:
                now = counter.joules()
            except Exception:  # of a driver or a file that went away: energy is never worth a run
                del self._counters[counter]
                continue
            self._taken[counter.kind] = self._taken.get(counter.kind, 0.0) + now - before
            self._counters[counter] = now


def open_meter(device: torch.device, powercap: Path = _POWERCAP) -> EnergyMeter:
    """What this process is to count: its own GPU, and the processors of the machine where it is the first on it."""
    counters: list[Counter] = gpu_counters(device)
    if not local_rank():
        counters += rapl_counters(powercap)
    return EnergyMeter(counters)


def gpu_counters(device: torch.device) -> list[Counter]:
    """The counter of a CUDA device; none where NVML, its Python package or the counter is missing."""
    if device.type != "cuda":
        return []
    try:
        import pynvml  # pyright: ignore[reportMissingImports]

        pynvml.nvmlInit()
        # By its name, because CUDA may number the devices in another way.
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        return [GpuCounter(lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))]
    except Exception:  # NVMLError is known only where the package is
        return []


def rapl_counters(powercap: Path = _POWERCAP) -> list[Counter]:
    """Packages and the memory beside them; cores are part of a package, and `psys` is all of them again."""
    counters: list[Counter] = []
    for folder in sorted(powercap.glob("intel-rapl:*")):
        try:
            name = (folder / "name").read_text().strip()
            if name.startswith("package") or name == "dram":
                counters.append(RaplCounter(folder))
        except (OSError, ValueError):
            continue  # most systems let only root read them
    return counters


def add_joules(total: dict[str, float], parts: Iterable[dict[str, float]]) -> None:
    """Adds what each rank took."""
    for part in parts:
        for kind, joules in part.items():
            total[kind] = total.get(kind, 0.0) + joules


def describe_energy(joules: dict[str, float], tokens: int) -> dict[str, Any] | str:
    """For train.json: kWh in all, by kind and per billion tokens."""
    if not joules:
        return NOT_MEASURED
    kwh = sum(joules.values()) / _JOULES_PER_KWH
    by_kind = {kind: float(f"{value / _JOULES_PER_KWH:.6g}") for kind, value in sorted(joules.items())}
    return {
        "kwh": float(f"{kwh:.6g}"),
        "kwh_by_kind": by_kind,
        "kwh_per_billion_tokens": float(f"{kwh / tokens * 1e9:.6g}") if tokens else None,
    }
