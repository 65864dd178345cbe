"""Loading takes the memory of the model and of one tensor more, measured by the kernel in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from aurora_m.model import ArchitectureConfig, Decoder, save_model

_MEASURE = """
import json, sys
from pathlib import Path
import torch
from aurora_m.model import load_model

def kilobytes(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))

load_model(Path(sys.argv[1]))  # what is imported and cached on first use is no part of the measure
Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
before = kilobytes("VmRSS:")
model = load_model(Path(sys.argv[2]))
after, peak = kilobytes("VmRSS:"), kilobytes("VmHWM:")
print(json.dumps({"before": before, "after": after, "peak": peak}))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells a process its own peak")
@pytest.mark.parametrize(("family", "stored"), [("llama", torch.bfloat16), ("bloom", torch.float32)])
def test_loading_holds_one_tensor_beyond_the_model(tmp_path, family, stored):
    sizes = {"family": family, "hidden_size": 1024, "heads": 8, "tied_embeddings": True}
    for name, layers in (("tiny", 1), ("model", 4)):
        model = Decoder(ArchitectureConfig.model_validate(sizes | {"layers": layers}).model_config_for(8000))
        save_model(model, tmp_path / name, dtype=stored, max_shard_bytes=80_000_000)
    weights = sum(parameter.nbytes for parameter in model.parameters())
    largest = max(parameter.nbytes for parameter in model.parameters())
    del model
    command = [sys.executable, "-c", _MEASURE, str(tmp_path / "tiny"), str(tmp_path / "model")]
    measured = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    beyond = (measured["peak"] - measured["before"]) * 1024 - weights
    assert weights > 150_000_000
    assert beyond < 1.1 * largest, f"{beyond / 1e6:.1f} MB beyond the weights; the largest tensor has {largest / 1e6}"
