"""A device is known by its whole name, or not at all."""

import pytest

from aurora_m.training.devices import DEVICES, find_device, known_device
from aurora_m.workspace import RecipeError


@pytest.mark.parametrize(
    ("reported", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA H200 NVL", "h200-nvl"),
        ("NVIDIA B200", "b200"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA A100-SXM4-40GB", "a100-40gb"),
        ("A100-SXM4-40GB", "a100-40gb"),
        ("NVIDIA A100-PCIE-40GB", "a100-pcie-40gb"),
        ("NVIDIA A100 80GB PCIe", "a100-pcie"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("AMD Instinct MI250X", "mi250x"),
        ("AMD Instinct MI300X", "mi300x"),
    ],
)
def test_devices_are_found_by_what_pytorch_calls_them(reported, name):
    found = find_device(reported)
    assert found is not None
    assert found.name == name


@pytest.mark.parametrize(
    "reported",
    [
        "",
        "NVIDIA",
        "NVIDIA GH200 480GB",
        "NVIDIA GB200",
        "NVIDIA H20",
        "NVIDIA H100 64GB HBM2",
        "NVIDIA H200 MIG 1g.18gb",
        "NVIDIA A100-SXM4-40GB MIG 3g.20gb",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA L40",
        "AMD Instinct MI250",
        "h200 of ours",
    ],
)
def test_what_is_not_in_the_table_is_not_taken_for_its_neighbour(reported):
    assert find_device(reported) is None


def test_an_h200_is_not_an_h100_nor_an_a100():
    devices = [find_device(name) for name in ("NVIDIA H200", "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB")]
    assert len({device.memory_bytes for device in devices if device}) == 2
    assert [device and device.bf16_flops / 1e12 for device in devices] == [989.5, 989.5, 312]


def test_every_figure_has_its_source_and_every_reported_name_one_device():
    assert all("data sheet" in one.source or "white paper" in one.source for one in DEVICES.values())
    reported = [name.casefold() for one in DEVICES.values() for name in one.reported]
    assert len(set(reported)) == len(reported)


def test_figures_by_hand_take_the_tables_place_and_describe_unknown_devices():
    assert known_device("H100", watts=500).watts == 500
    assert known_device("h100", memory_gigabytes=64).memory_bytes == 64 * 10**9
    ours = known_device("ours", memory_gigabytes=24, peak_teraflops=50)
    assert (ours.name, ours.bf16_flops, ours.watts) == ("ours", 50e12, None)
    assert "--peak-tflops 50" in ours.source


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "'h900' is not in the table; known are a100, .*give --memory-gb and --peak-tflops"),
        ({"memory_gigabytes": 80}, "'h900' is not in the table"),
        ({"memory_gigabytes": 80, "peak_teraflops": -1}, "--peak-tflops -1: expected a number above 0"),
        ({"memory_gigabytes": float("nan"), "peak_teraflops": 1}, "--memory-gb nan: expected a number above 0"),
    ],
)
def test_unknown_devices_and_impossible_figures_are_refused(given, message):
    with pytest.raises(RecipeError, match=message):
        known_device("h900", **given)
