"""Joules are counted once each, over wrap-arounds and resumes, and where nothing can be read nothing is claimed."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.training.synthetic import tiny_base, tiny_config, write_tokens

from aurora_m.training import energy, stage
from aurora_m.training.energy import EnergyMeter, describe_energy, gpu_counters, open_meter, rapl_counters
from aurora_m.training.ranks import Ranks
from aurora_m.training.stage import train
from aurora_m.training.state import TrainingState
from aurora_m.workspace import Progress, read_json

CPU = torch.device("cpu")


def domain(powercap: Path, folder: str, name: str, microjoules: int = 0, wraps_at: int = 1000) -> Path:
    path = powercap / folder
    path.mkdir(parents=True)
    for file, value in (("name", name), ("max_energy_range_uj", wraps_at), ("energy_uj", microjoules)):
        (path / file).write_text(f"{value}\n")
    return path / "energy_uj"


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 999), st.lists(st.integers(0, 999), max_size=20))
def test_a_counter_that_wraps_around_counts_all(tmp_path_factory, start, spent):
    powercap = tmp_path_factory.mktemp("powercap")
    file = domain(powercap, "intel-rapl:0", "package-0", start)
    meter, total = EnergyMeter(rapl_counters(powercap)), start
    for microjoules in spent:
        total += microjoules
        file.write_text(str(total % 1000))
        assert meter.take().get("cpu", 0.0) == pytest.approx(microjoules / 1e6, abs=1e-9)


def test_packages_and_memory_count_and_what_is_part_of_them_does_not(tmp_path):
    files = [
        domain(tmp_path, "intel-rapl:0", "package-0"),
        domain(tmp_path, "intel-rapl:0:0", "core"),
        domain(tmp_path, "intel-rapl:0:1", "dram"),
        domain(tmp_path, "intel-rapl:1", "package-1"),
        domain(tmp_path, "intel-rapl:2", "psys"),
    ]
    meter = open_meter(CPU, tmp_path)
    for place, file in enumerate(files):
        file.write_text(str(10**place))
    assert meter.take() == {"cpu": pytest.approx(1101e-6)}


def test_unreadable_and_broken_counters_are_left_out(tmp_path):
    domain(tmp_path, "intel-rapl:0", "package-0").unlink()
    domain(tmp_path, "intel-rapl:1", "package-1").write_text("x")
    file = domain(tmp_path, "intel-rapl:2", "package-2")
    meter = open_meter(CPU, tmp_path)
    file.write_text("500")
    assert meter.take() == {"cpu": pytest.approx(5e-4)}
    file.unlink()  # gone while training runs
    assert meter.take() == {}
    assert open_meter(CPU, tmp_path / "none").take() == {}


@pytest.mark.parametrize(("rank", "counts"), [("0", True), ("1", False)])
def test_processors_are_counted_once_a_machine(tmp_path, monkeypatch, rank, counts):
    file = domain(tmp_path, "intel-rapl:0", "package-0")
    monkeypatch.setenv("LOCAL_RANK", rank)
    meter = open_meter(CPU, tmp_path)
    file.write_text("100")
    assert bool(meter.take()) is counts


def test_a_gpu_is_found_by_its_name_and_counted_in_millijoules(tmp_path, monkeypatch):
    counts = {"GPU-aa": 1_000_000, "GPU-bb": 5}
    fake = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: counts[handle],
    )
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="aa"))
    device = torch.device("cuda", 0)
    meter = open_meter(device, tmp_path)
    counts["GPU-aa"] += 2500
    assert meter.take() == {"gpu": 2.5}
    counts.clear()  # the driver fails
    assert meter.take() == {}
    assert gpu_counters(device) == []  # a device that NVML does not know
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpu_counters(device) == []


def test_counters_are_read_between_takes_before_they_can_wrap_twice(tmp_path, monkeypatch):
    file, now = domain(tmp_path, "intel-rapl:0", "package-0"), [0.0]
    monkeypatch.setattr(energy.time, "monotonic", lambda: now[0])
    meter = open_meter(CPU, tmp_path)
    for count in (900, 800, 700):
        file.write_text(str(count))
        now[0] += 61
        meter.sample()
    assert meter.take() == {"cpu": pytest.approx(2700e-6)}


def test_energy_is_given_by_kind_and_per_billion_tokens():
    assert describe_energy({}, 5) == "not measured"
    found = describe_energy({"gpu": 7.2e6, "cpu": 3.6e6}, 500_000_000)
    assert found == {"kwh": 3.0, "kwh_by_kind": {"cpu": 1.0, "gpu": 2.0}, "kwh_per_billion_tokens": 6.0}


class TwoRanks(Ranks):
    def gather(self, value):
        return [value, {"gpu": 2.0}]


def test_all_ranks_joules_are_summed():
    state = TrainingState(torch.nn.Linear(1, 1), None, None, ranks=TwoRanks(), meter=EnergyMeter([OneJouleARead()]))
    state.take_energy()
    state.take_energy()
    assert state.joules == state.phase_joules == {"cpu": 7200.0, "gpu": 4.0}


# ---- a run


class OneJouleARead:
    kind = "cpu"

    def __init__(self) -> None:
        self.total = 0.0

    def joules(self) -> float:
        self.total += 3600.0
        return self.total


def go(tokens: Path, out: Path, **changes) -> dict:
    config = tiny_config(**changes)
    return train(config, tiny_base(), tokens, out, seed=1, base_folder=None, progress=Progress(quiet=True))


def test_energy_is_in_the_results_and_goes_on_after_a_resume(tmp_path, monkeypatch):
    tokens = write_tokens(tmp_path / "tokens")
    monkeypatch.setattr(stage, "open_meter", lambda device: EnergyMeter([OneJouleARead()]))
    facts = go(tokens, tmp_path / "whole")
    base, cap = (phase["energy"]["kwh"] for phase in facts["phases"])
    # At checkpoints and phase ends: steps 5, 10, 12; 14, 17, 20, 22.
    assert (base, cap, facts["energy"]["kwh"]) == (pytest.approx(0.003), pytest.approx(0.004), pytest.approx(0.007))
    assert facts["energy"]["kwh_per_billion_tokens"] == pytest.approx(
        facts["energy"]["kwh"] / facts["tokens"] * 1e9, rel=1e-5
    )

    count = TrainingState.count

    def stop(self, *arguments):
        count(self, *arguments)
        if self.step == 13:
            raise KeyboardInterrupt

    monkeypatch.setattr(TrainingState, "count", stop)
    with pytest.raises(KeyboardInterrupt):
        go(tokens, tmp_path / "out")
    monkeypatch.setattr(TrainingState, "count", count)
    assert go(tokens, tmp_path / "out")["phases"][0]["energy"] == facts["phases"][0]["energy"]
    assert read_json(tmp_path / "out" / "train.json")["energy"] == facts["energy"]

    assert go(tokens, tmp_path / "off", telemetry={"energy": False})["energy"] == "not measured"


def test_a_checkpoint_from_before_energy_was_counted_still_loads(tmp_path):
    tokens = write_tokens(tmp_path / "tokens")
    facts = go(tokens, tmp_path / "out")
    for path in tmp_path.rglob("state.json"):
        text = path.read_text().replace('  "joules": {},\n', "").replace('"phase_joules": {},', "")
        assert "joules" not in text
        path.write_text(text)
    (tmp_path / "out" / "CAP" / "checkpoints" / "step-00000022" / "__0_0.distcp").write_bytes(b"")
    again = go(tokens, tmp_path / "out")
    assert again["tokens"] == facts["tokens"] and again["energy"] == "not measured"
