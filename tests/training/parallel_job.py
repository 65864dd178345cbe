"""Runs training jobs of several processes: one interpreter imports everything, then forks the ranks of each job.

    python -m tests.training.parallel_job JOBS.json

JOBS.json lists jobs {processes, runs}; a run is {out, tokens, base, config} and may have `die: [rank, step]`, `nan: step`
(in a gradient of the last rank) or `poison: [steps]` (documents of `cc` in these steps give NaN whenever they are met).
The runs of a job share its process group. A job with `export: {out, max_shard_bytes}` first writes a model of 100 MB there,
and in memory.json how much memory the main rank took for it.
"""

import json
import math
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import torch
from tests.training.synthetic import tiny_config

from aurora_m.model import ArchitectureConfig, BaseConfig, Decoder, init_weights, write_model
from aurora_m.training import ParallelConfig, Ranks, build_mesh, parallelize, train
from aurora_m.training import trainer as trainer_module
from aurora_m.training.gather import gather_tensors
from aurora_m.training.gradients import local_tensor
from aurora_m.training.ranks import join_ranks
from aurora_m.workspace import AuroraError, Progress


def main() -> None:
    torch.set_num_threads(1)
    for job in json.loads(Path(sys.argv[1]).read_text()):
        children = start(job)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(json.dumps(codes), flush=True)


def start(job: dict[str, Any]) -> list[int]:
    """Forks the ranks of a job; each goes through its runs and ends."""
    port, children = find_port(), []
    for rank in range(job["processes"]):
        child = os.fork()
        if child == 0:
            set_rank(rank, job["processes"], port)
            os._exit(run_all(job, rank))
        children.append(child)
    return children


def find_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def set_rank(rank: int, processes: int, port: int) -> None:
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in names.items()} | {"MASTER_ADDR": "127.0.0.1"}


def run_all(job: dict[str, Any], rank: int) -> int:
    if os.environ["WORLD_SIZE"] != "1":
        join_ranks(torch.device("cpu"))
    if "export" in job:
        measure_export(Path(job["export"]["out"]), job["export"]["max_shard_bytes"], job["processes"])
    for run in job["runs"]:
        plant(run)
        if run.get("die", [None])[0] == rank:
            die_at(run["die"][1])
        config = tiny_config(**{"threads": 1, "precision": "float32"} | run["config"])
        folder = Path(run["base"]["path"]) if "path" in run["base"] else None
        base = BaseConfig(**run["base"]) if folder else BaseConfig(architecture=ArchitectureConfig(**run["base"]))
        try:
            train(
                config, base, Path(run["tokens"]), Path(run["out"]), seed=1, base_folder=folder, progress=Progress(True)
            )
        except AuroraError as error:
            Path(run["out"], f"error-{rank}.txt").write_text(f"{type(error).__name__}: {error}")
            return 1
    return 0


def measure_export(out: Path, max_shard_bytes: int, processes: int) -> None:
    sizes = {"family": "llama", "layers": 8, "hidden_size": 512, "heads": 8}
    config = ParallelConfig()
    with torch.device("meta"):
        model = Decoder(ArchitectureConfig.model_validate(sizes).model_config_for(1500))
    mesh = build_mesh(config, "cpu", processes)
    split = parallelize(model, mesh, config).to_empty(device="cpu")
    init_weights(split, 0)
    tensors = gather_tensors(split, Ranks(mesh))
    if torch.distributed.get_rank():
        for _ in tensors:
            pass
        return
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = kilobytes("VmRSS:")
    write_model(split.config, tensors, out, max_shard_bytes=max_shard_bytes)
    (out / "memory.json").write_text(json.dumps({"peak": (kilobytes("VmHWM:") - before) * 1024}))


def kilobytes(name: str) -> int:
    with Path("/proc/self/status").open() as status:
        return next(int(line.split()[1]) for line in status if line.startswith(name))


ACCUMULATE = trainer_module.accumulate_gradients


def plant(run: dict[str, Any]) -> None:
    """Makes gradients NaN on one rank only, as a run asks for; the others must hear of it from that one."""
    calls, bad = 0, set()

    def accumulate(model, batch, micro_batch, dtype, ranks):
        nonlocal calls
        calls += 1
        nll = ACCUMULATE(model, batch, micro_batch, dtype, ranks)
        documents = [
            {(domain, number) for number in numbers}
            for domain, numbers in zip(batch.domains, batch.documents, strict=True)
        ]
        if calls in run.get("poison", []):
            bad.update(one for numbers in documents for one in numbers if one[0] == "cc")
        hit = torch.tensor([bool(numbers & bad) for numbers in documents])
        own_hit = hit[ranks.own_sequences(len(hit))].any()
        last = all(ranks.place(dimension) == ranks.degree(dimension) - 1 for dimension in ("pipeline", "tensor"))
        last_of_all = last and ranks.place("data") == ranks.degree("data") - 1
        if (own_hit and last) or (calls == run.get("nan") and last_of_all):
            for parameter in model.parameters():
                if parameter.grad is not None:
                    local_tensor(parameter.grad).fill_(math.nan)
        return nll.masked_fill(hit, math.nan)

    trainer_module.accumulate_gradients = accumulate if "nan" in run or "poison" in run else ACCUMULATE


def die_at(step: int) -> None:
    """This process is killed in the middle of a step, when the others wait for it."""
    accumulate, calls = trainer_module.accumulate_gradients, []

    def dying(*arguments, **settings):
        calls.append(1)
        if len(calls) == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return accumulate(*arguments, **settings)

    trainer_module.accumulate_gradients = dying


if __name__ == "__main__":
    main()
