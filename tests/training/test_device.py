"""How much fits at once, and in which precision."""

import pytest
import torch

from aurora_m.model import ArchitectureConfig, Decoder, count_parameters
from aurora_m.training import device as device_module
from aurora_m.training import pick_device, resolve_precision
from aurora_m.training.device import auto_micro_batch, estimated_parameters

CPU = torch.device("cpu")


def config(hidden: int, **changes):
    sizes = {"family": "llama", "layers": 4, "hidden_size": hidden, "heads": 4} | changes
    return ArchitectureConfig(**sizes).model_config_for(1000)


def test_precision_follows_the_hardware_only_when_automatic(monkeypatch):
    for hardware in (True, False):
        monkeypatch.setattr(device_module, "_cpu_multiplies_bfloat16", lambda answer=hardware: answer)
        assert resolve_precision("auto", CPU) == (torch.bfloat16 if hardware else torch.float32)
        assert resolve_precision("float32", CPU) == torch.float32
        assert resolve_precision("bfloat16", CPU) == torch.bfloat16
    assert resolve_precision("auto", torch.device("cuda")) == torch.bfloat16


def test_a_device_is_found():
    assert pick_device().type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_small_models_take_the_step_at_once_and_large_ones_in_equal_parts():
    assert auto_micro_batch(config(64), 16, 256, CPU, torch.float32) == 16
    assert auto_micro_batch(config(8192, layers=40), 16, 2048, CPU, torch.float32) == 1
    part = auto_micro_batch(config(512), 30, 512, CPU, torch.float32)
    assert 1 < part < 30 and -(-30 // part) * part - 30 < -(-30 // part)
    assert auto_micro_batch(config(512), 30, 512, CPU, torch.bfloat16) >= part


def test_the_penalties_of_alibi_are_counted():
    plain, alibi = (config(256, family=family, kv_heads=4) for family in ("gpt_bigcode", "bloom"))
    assert auto_micro_batch(alibi, 64, 2048, CPU, torch.float32) < auto_micro_batch(plain, 64, 2048, CPU, torch.float32)


@pytest.mark.parametrize(
    "family", ["llama", "gpt_bigcode", "bloom", "starcoder2", "mistral", "qwen2", "qwen3", "olmo2"]
)
def test_the_parameter_estimate_is_close(family):
    wide = config(256, family=family, max_positions=64)
    assert estimated_parameters(wide) == pytest.approx(count_parameters(Decoder(wide)), rel=0.02)
