"""A run that is killed again and again, at any moment, ends with the weights of one that was left alone."""

import os
import subprocess
import sys

from tests.conftest import PYTHONPATH
from tests.training.synthetic import write_tokens

KILLS = 50

# Children are forked from one process that has imported everything, so that a life costs no start-up.
PROGRAM = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from aurora_m.training import TrainConfig
from aurora_m.training.stage import train
from aurora_m.workspace import Progress
from tests.conftest import REPOSITORY
from tests.training.synthetic import tiny_base

PHASES = [{"name": "base", "tokens": 200 * 64, "mixture": {"aa": 0.5, "bb": 0.25, "cc": 0.25}, "sequence_length": 32,
           "tokens_per_step": 64, "lr": {"peak": 3e-3, "warmup": "10 steps", "to": 3e-4}}]
config = TrainConfig.model_validate({"phases": PHASES, "ledger": {"every": 4000}, "checkpoint": {"every": 640},
                                     "threads": 1})

def work(out):
    train(config, tiny_base(), Path(sys.argv[1]), out, seed=1, base_folder=None, progress=Progress(quiet=True))

def life(out):
    child = os.fork()
    if child == 0:
        work(out)
        os._exit(0)
    return child

def undisturbed(out):
    started = time.monotonic()
    assert os.waitstatus_to_exitcode(os.waitpid(life(out), 0)[1]) == 0
    return time.monotonic() - started

out = Path(sys.argv[2])
seconds = undisturbed(out / "whole")
draw, kills, runs = random.Random(0), 0, 0
while kills < int(sys.argv[3]):
    child = life(out / f"killed-{runs}")
    time.sleep(draw.uniform(0.0, 0.3) * seconds)
    os.kill(child, signal.SIGKILL)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL:
        kills += 1
    else:  # it was through before its time: the next run, and sooner
        seconds, runs = seconds / 2, runs + 1
undisturbed(out / f"killed-{runs}")
"""


def test_fifty_kills_at_random_moments_change_no_bit(tmp_path):
    tokens = write_tokens(tmp_path / "tokens")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": PYTHONPATH}
    command = [sys.executable, "-c", PROGRAM, str(tokens), str(tmp_path), str(KILLS)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert result.returncode == 0, result.stderr
    whole = (tmp_path / "whole" / "base" / "model" / "model.safetensors").read_bytes()
    killed = sorted(tmp_path.glob("killed-*"))
    assert killed and (tmp_path / "whole" / "ledger.parquet").exists()
    for run in killed:
        assert (run / "base" / "model" / "model.safetensors").read_bytes() == whole
        assert (run / "ledger.parquet").exists()
