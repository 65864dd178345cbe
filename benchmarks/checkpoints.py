"""What a checkpoint costs the training loop: written while it waits, and written beside it (the default).

A GPTBigCode model of 50M parameters, steps of 4 sequences of 256, AdamW in float32 on 2 threads: 0.6 GB a checkpoint.
Turns of 8 steps, in which a checkpoint is saved after the 4th: none, in the loop, beside it, one after the other so
that what else the machine does falls on all. `stands still` is how long the loop waits (metrics' `checkpoint_seconds`:
for the checkpoint itself, or for the copy in memory); `CPU` is how many more CPU seconds the process took from there
to the end of the last step than in the turn without.

    python benchmarks/checkpoints.py [--turns 4] [--threads 2]
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path

import torch
from training_turns import Stopwatch, phase_of, write_documents

from aurora_m.model import ArchitectureConfig, Decoder, count_parameters
from aurora_m.tokens import DomainTokens, TrainBatches
from aurora_m.training import (
    CheckpointConfig,
    Loop,
    OptimizerConfig,
    TrainingState,
    build_optimizer,
    run_phase,
    segment_of,
)

BATCH, LENGTH, VOCABULARY, STEPS, SAVED_AFTER = 4, 256, 16384, 8, 4
TOKENS_PER_STEP = BATCH * LENGTH
MODES = {"no checkpoint": None, "in the loop": False, "beside the loop": True}


def take_turn(
    model: Decoder, optimizer: torch.optim.Optimizer, tokens: Path, asynchronous: bool | None
) -> tuple[float, float]:
    """Seconds the loop stood still for the checkpoint, and CPU seconds from there to the end of the last step."""
    stopwatch = Stopwatch(time.process_time)
    batches = TrainBatches({"aa": DomainTokens(tokens, "aa")}, {"aa": 1.0}, LENGTH, 0, 0)
    phase = phase_of(STEPS, BATCH, LENGTH, {"aa": 1.0})
    every = 10**9 if asynchronous is None else SAVED_AFTER * TOKENS_PER_STEP
    checkpoint = CheckpointConfig(every=every, asynchronous=bool(asynchronous))
    with tempfile.TemporaryDirectory() as folder:
        loop = Loop(Path(folder), checkpoint, 1.0, torch.float32, None, 0, stopwatch)
        run_phase(TrainingState(model, optimizer, batches), phase, segment_of(phase), loop, "benchmark")
        rows = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    after = stopwatch.times[-1] - stopwatch.times[SAVED_AFTER - 1]
    return rows[SAVED_AFTER].get("checkpoint_seconds", 0.0), after


def main() -> None:
    parser = argparse.ArgumentParser(description="What a checkpoint costs the training loop.")
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    architecture = ArchitectureConfig(layers=15, hidden_size=512, heads=8, max_positions=LENGTH)
    model = Decoder(architecture.model_config_for(VOCABULARY))
    model.init_weights(seed=0)
    optimizer = build_optimizer(model, OptimizerConfig())
    still: dict[str, list[float]] = {mode: [] for mode in MODES}
    costs: dict[str, list[float]] = {mode: [] for mode in MODES}
    with tempfile.TemporaryDirectory() as folder:
        write_documents(Path(folder), ["aa"], VOCABULARY, (300, 301))
        for _ in range(arguments.turns):
            taken = {mode: take_turn(model, optimizer, Path(folder), setting) for mode, setting in MODES.items()}
            for mode, (stood, seconds) in taken.items():
                still[mode].append(stood)
                costs[mode].append(seconds - taken["no checkpoint"][1])
            print("; ".join(f"{mode}: {stood:.2f} of {seconds:.2f} CPU s" for mode, (stood, seconds) in taken.items()))
    parameters = count_parameters(model)
    print(f"{platform.processor() or platform.machine()}, {arguments.threads} threads, torch {torch.__version__}")
    print(f"{parameters:,} parameters, {12 * parameters / 1e9:.2f} GB a checkpoint, {arguments.turns} turns, medians\n")
    print("| checkpoint | stands still, s | CPU, s |\n|---|---|---|")
    result: dict[str, float] = {"parameters": parameters}
    for mode, key in (("in the loop", "synchronous"), ("beside the loop", "asynchronous")):
        stood, cost = statistics.median(still[mode]), statistics.median(costs[mode])
        result |= {f"{key}_stall_seconds": round(stood, 3), f"{key}_cpu_seconds": round(cost, 3)}
        print(f"| {mode} | {stood:.2f} | {cost:.2f} |")
    result["stall_ratio"] = round(result["synchronous_stall_seconds"] / result["asynchronous_stall_seconds"], 2)
    print(f"\nbeside the loop, it stands still {result['stall_ratio']:.1f} times shorter")
    print(f"RESULT {json.dumps(result)}")


if __name__ == "__main__":
    main()
