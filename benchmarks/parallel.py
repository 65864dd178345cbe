"""How far training over several processes is from one process: losses, gradient norms, held-out bits-per-byte.

The protocol: the same seed, so the same first weights; the same tokens in the same order in every step; one process as
the control; float32, on CPUs with gloo. Tiny models of gpt_bigcode (tied embedding, multi-query) and llama (grouped
queries, untied) whose vocabulary of 301 divides by no degree. Largest relative differences over all steps. The row
"micro batch of 1" is one process that only sums in another order: what rounding alone does.

    python benchmarks/parallel.py [--steps 20]
"""

import argparse
import json
import os
import platform
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.training.synthetic import write_tokens

from aurora_m.model import ArchitectureConfig, BaseConfig
from aurora_m.training import TrainConfig, train
from aurora_m.workspace import Progress, read_json, write_json

SIZES = {"layers": 4, "hidden_size": 64, "heads": 4, "max_positions": 64}
FAMILIES = {"gpt_bigcode": SIZES, "llama": SIZES | {"kv_heads": 2}}
# name: processes, parallel, micro batch
LAYOUTS: dict[str, tuple[int, dict[str, Any], int]] = {
    "one process": (1, {}, 2),
    "one process, micro batch of 1": (1, {}, 1),
    "data 2": (2, {}, 2),
    "tensor 2, sequence": (2, {"tensor": 2}, 2),
    "tensor 2": (2, {"tensor": 2, "sequence": False}, 2),
    "pipeline 2, 1F1B": (2, {"pipeline": 2}, 1),
    "pipeline 2, interleaved": (2, {"pipeline": 2, "stages_per_rank": 2}, 1),
    "data 4": (4, {}, 1),
    "tensor 4, sequence": (4, {"tensor": 4}, 2),
    "data 2 x tensor 2": (4, {"tensor": 2}, 2),
    "pipeline 2 x data 2": (4, {"pipeline": 2}, 1),
    "pipeline 2 x tensor 2": (4, {"pipeline": 2, "tensor": 2}, 1),
}


def train_config(steps: int, parallel: dict[str, Any], micro_batch: int) -> TrainConfig:
    phase = {
        "name": "base",
        "tokens": steps * 256,
        "mixture": {"aa": 0.5, "bb": 0.25, "cc": 0.25},
        "sequence_length": 64,
        "tokens_per_step": 256,
        "lr": {"peak": 3e-3, "warmup": "2 steps", "to": 3e-4},
    }
    sections = {"ledger": {"every": 2000}, "checkpoint": {"every": 10**9}, "threads": 1, "precision": "float32"}
    return TrainConfig.model_validate(sections | {"phases": [phase], "parallel": parallel, "micro_batch": micro_batch})


def run(processes: int, *arguments: Any) -> None:
    """Trains in forked processes, with the variables that torchrun would set."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    children = []
    for rank in range(processes):
        child = os.fork()
        if child == 0:
            signal.alarm(300)
            names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_PORT": port}
            os.environ |= {name: str(value) for name, value in names.items()} | {"MASTER_ADDR": "127.0.0.1"}
            config, base, tokens, out = arguments
            train(config, base, tokens, out, seed=1, base_folder=None, progress=Progress(quiet=True))
            os._exit(0)
        children.append(child)
    codes = [os.waitpid(child, 0)[1] for child in children]
    assert not any(codes), f"ranks ended with {codes}"


def figures(out: Path) -> dict[str, list[float]]:
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    ledger = pq.read_table(out / "ledger.parquet").to_pylist()
    return {
        "loss": [row["loss"] for row in rows],
        "grad_norm": [row["grad_norm"] for row in rows],
        "bpb": [row["bpb"] for row in ledger],
    }


def differences(ours: dict[str, list[float]], control: dict[str, list[float]]) -> dict[str, float]:
    return {
        name: max(abs(x - y) / y for x, y in zip(ours[name], values, strict=True)) for name, values in control.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    steps = parser.parse_args().steps
    torch.set_num_threads(1)
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, {steps} steps")
    print(f"{'':<12} {'':<30} {'loss':>9} {'grad norm':>10} {'bpb':>9} {'seconds':>8}")
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        tokens = write_tokens(folder / "tokens", documents=200)
        facts = read_json(tokens / "tokens.json")
        write_json(tokens / "tokens.json", facts | {"tokenizer": facts["tokenizer"] | {"vocab_size": 301}})
        for family, sizes in FAMILIES.items():
            base = BaseConfig(architecture=ArchitectureConfig.model_validate({"family": family, **sizes}))
            control = None
            for name, (processes, parallel, micro_batch) in LAYOUTS.items():
                out, began = folder / family / name, time.monotonic()
                run(processes, train_config(steps, parallel, micro_batch), base, tokens, out)
                seconds = time.monotonic() - began
                control = control or figures(out)
                found = differences(figures(out), control)
                result[f"{family}, {name}"] = found
                print(
                    f"{family:<12} {name:<30} {found['loss']:>9.1e} {found['grad_norm']:>10.1e} {found['bpb']:>9.1e} "
                    f"{seconds:>8.1f}",
                    flush=True,
                )
    print("RESULT " + json.dumps(result))


if __name__ == "__main__":
    main()
