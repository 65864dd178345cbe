"""A plan's memory against that of the real step: 50M weights in float32, in one process and sharded over two (FSDP2).

The plan runs the training step on tensors without numbers. Here the same model is trained for real, by the loop's own
functions, on CPUs with gloo, and measured in two ways:

- tensors: the largest sum of bytes that live tensors hold at once in a step, as PyTorch's own memory events tell
  (allocations less frees in its CPU allocator), above what was there before the model was built;
- resident: how far the process's resident memory rises above what it was before the model was built (VmHWM, reset by
  the kernel's clear_refs, less VmRSS): with all that kernels and libraries keep for themselves. glibc is told to give
  freed blocks back; by default it keeps those of up to 32 MB, which --keep-blocks lets it do.

On a GPU (--device cuda, one process) "resident" is what the driver has given away, and "tensors" what PyTorch's
allocator handed out at most.

    python benchmarks/plan.py [--keep-blocks] [--device cuda]
"""

import argparse
import json
import os
import platform
import socket
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from aurora_m.model import ArchitectureConfig, Decoder
from aurora_m.training import ParallelConfig
from aurora_m.training.config import OptimizerConfig
from aurora_m.training.gradients import clip_gradients
from aurora_m.training.optimizer import build_optimizer, take_step
from aurora_m.training.parallel import parallelize
from aurora_m.training.plan import rehearse_all
from aurora_m.training.ranks import open_ranks
from aurora_m.training.rehearsal import Layout, dealt_batch
from aurora_m.training.trainer import accumulate_gradients

MODEL = ArchitectureConfig(layers=12, hidden_size=576, heads=9, max_positions=512).model_config_for(16_384)
LENGTH, MICRO_BATCH, MICRO_BATCHES = 512, 4, 2
MEGABYTE = 1e6
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_TRIM_THRESHOLD_": "1048576"}  # bytes


@dataclass(frozen=True)
class Case:
    name: str
    processes: int
    dtype: str = "float32"

    def layout(self, device: str) -> Layout:
        parallel, dtype = ParallelConfig(data=self.processes), getattr(torch, self.dtype)
        return Layout(
            MODEL, parallel, self.processes, LENGTH, MICRO_BATCH, MICRO_BATCHES, dtype, on_cpu=device == "cpu"
        )


CASES = [Case("one process", 1), Case("data 2 (FSDP2)", 2)]


# ----------------------------------------------------------------------------------------------- the real step
def measure(case: Case, device: torch.device) -> dict[str, float] | None:
    """Bytes above those before the model was built, at the highest, of this rank; None but on rank 0."""
    layout = case.layout(device.type)
    with open_ranks(layout.parallel, device) as ranks:
        before = Resident(device)
        model: Any = Decoder(MODEL)
        model.init_weights(0)
        model = model.to(device) if ranks.mesh is None else parallelize(model, ranks.mesh, layout.parallel)
        optimizer = build_optimizer(model, OptimizerConfig())

        def step() -> None:
            accumulate_gradients(model, dealt_batch(layout, MICRO_BATCHES, ranks), MICRO_BATCH, layout.dtype, ranks)
            clip_gradients(list(model.parameters()), 1.0, ranks)
            take_step(optimizer, torch.zeros((), device=device))
            optimizer.zero_grad(set_to_none=True)

        step()  # what is made once: oneDNN's kernels, DTensor's knowledge of shapes
        before.forget_peak()
        step()
        resident = before.rise()
        held = states_bytes(model, optimizer)
        tensors = held + highest_of_events(step) if device.type == "cpu" else torch.cuda.max_memory_allocated(device)
        return {"tensors": tensors, "resident": resident} if ranks.is_main else None


def states_bytes(model: Any, optimizer: torch.optim.Optimizer) -> int:
    """Weights and moments, which are there between steps."""
    states = [one for state in optimizer.state.values() for one in state.values()]
    return sum(getattr(one, "_local_tensor", one).nbytes for one in (*model.parameters(), *states))


def highest_of_events(step: Any) -> int:
    """Bytes above those at its beginning that a step holds at most, by PyTorch's memory events."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    live = highest = 0
    for event in sorted(profiler.profiler.kineto_results.events(), key=lambda one: one.start_ns()):  # type: ignore[union-attr]
        if event.name() == "[memory]":
            live += event.nbytes()
            highest = max(highest, live)
    return highest


class Resident:
    """How far resident memory rises above what it was when this was made."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.zeros(1, device=device) @ torch.zeros(1, device=device)
        self.floor = self._now("VmRSS")

    def forget_peak(self) -> None:
        """The peak begins anew, from what is resident now."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            Path("/proc/self/clear_refs").write_text("5")

    def rise(self) -> int:
        return self._now("VmHWM") - self.floor

    def _now(self, name: str) -> int:
        if self.device.type == "cuda":
            free, total = torch.cuda.mem_get_info(self.device)
            return total - free
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


# ----------------------------------------------------------------------------------------------- the table
def run(case: Case, device: str, allocator: dict[str, str]) -> dict[str, float]:
    """Measures in processes of their own; returns rank 0's figures."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    started = []
    for rank in range(case.processes):
        job = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": case.processes, "MASTER_PORT": port}
        variables = {name: str(value) for name, value in job.items()} if case.processes > 1 else {}
        started.append(
            subprocess.Popen(
                [sys.executable, "-W", "ignore", __file__, "--device", device, "--case", json.dumps(asdict(case))],
                env=os.environ | allocator | variables | {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    outputs = [process.communicate(timeout=600)[0] for process in started]
    if any(process.returncode for process in started):
        sys.exit(f"{case.name}: a process failed")
    return json.loads(next(line for line in outputs[0].splitlines() if line.startswith("{")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--keep-blocks", action="store_true", help="glibc's own ways with freed blocks")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        measured = measure(Case(**json.loads(arguments.case)), torch.device(arguments.device))
        if measured:
            print(json.dumps(measured), flush=True)
        os._exit(0)  # gloo's threads may outlive the interpreter
    cases = CASES if arguments.device == "cpu" else [CASES[0], Case("one process, bf16", 1, "bfloat16")]
    planned = rehearse_all([(case.layout(arguments.device), 0) for case in cases])
    rows = []
    print(f"{sum(one.numel() for one in Decoder(MODEL).parameters()) / 1e6:.1f}M weights, sequences of {LENGTH}, "
          f"{MICRO_BATCH} at once, {MICRO_BATCHES} times; MB of one rank\n")  # fmt: skip
    print(f"{'':20}{'plan':>9}{'tensors':>9}{'ratio':>7}{'resident':>10}{'ratio':>7}")
    for case, usage in zip(cases, planned, strict=True):
        measured = run(case, arguments.device, {} if arguments.keep_blocks else GIVE_BACK)
        ratios = {name: usage.peak / value for name, value in measured.items()}
        rows.append({"case": case.name, "plan": usage.peak, **measured, "ratios": ratios})
        print(f"{case.name:20}{usage.peak / MEGABYTE:9.1f}{measured['tensors'] / MEGABYTE:9.1f}{ratios['tensors']:7.3f}"
              f"{measured['resident'] / MEGABYTE:10.1f}{ratios['resident']:7.3f}", flush=True)  # fmt: skip
    machine = torch.cuda.get_device_name() if arguments.device == "cuda" else platform.processor() or platform.machine()
    print("RESULT " + json.dumps({"machine": machine, "torch": torch.__version__, "rows": rows}))


if __name__ == "__main__":
    main()
