"""Seconds and memory of a training step by what its layers keep for the backward pass.

A Llama of 50M parameters (hidden 512, 12 layers, 8 heads, vocabulary 16384), one micro batch of 4 sequences of 512 with
documents, loss and gradients, on 2 threads, in float32 and under bfloat16 autocast. The modes take turns, so that what
else the machine does falls on all; the least of the processor's seconds counts. Memory is counted by PyTorch's
MemTracker in a pass of its own: the peak of a step, and what is there between forward and backward pass, weights and
gradients included. The last row is without autocast's cache of cast weights.

    python benchmarks/activation_checkpointing.py [--turns 5] [--threads 2]
"""

import argparse
import json
import platform
import time

import torch
from torch.distributed._tools.mem_tracker import MemTracker

from aurora_m.model import ArchitectureConfig, Decoder, count_parameters
from aurora_m.training import checkpoint_activations, decoder_loss

ROWS, LENGTH, VOCABULARY = 4, 512, 16384
CASES = [(mode, dtype, True) for dtype in ("float32", "bfloat16") for mode in ("none", "selective", "full")]
CASES += [("none", "bfloat16", False)]


def make_model(mode: str) -> Decoder:
    architecture = ArchitectureConfig(family="llama", layers=12, hidden_size=512, heads=8, max_positions=LENGTH)
    model = Decoder(architecture.model_config_for(VOCABULARY))
    model.init_weights(seed=0)
    checkpoint_activations(model.layers, mode)  # type: ignore[arg-type]
    return model


def loss_of(model: Decoder, dtype: str, cached: bool) -> torch.Tensor:
    ids = torch.randint(0, VOCABULARY, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))
    documents = (torch.arange(LENGTH) // 130).int().expand(ROWS, -1)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16", cache_enabled=cached):
        return decoder_loss(model, model(ids, document_ids=documents), ids, 1 / (ROWS * LENGTH))[0]


def memory(model: Decoder, dtype: str, cached: bool) -> tuple[int, int]:
    """Bytes between the passes, and the peak."""
    tracker, device = MemTracker(), torch.device("cpu")
    model.zero_grad(set_to_none=True)
    with tracker:
        loss = loss_of(model, dtype, cached)
        between = tracker.get_tracker_snapshot("current")[device]["Total"]
        loss.backward()
    return between, tracker.get_tracker_snapshot("peak")[device]["Total"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    models = {mode: make_model(mode) for mode in ("none", "selective", "full")}
    seconds: dict[tuple, list[float]] = {case: [] for case in CASES}
    for turn in range(options.turns + 1):
        for case in CASES:
            mode, dtype, cached = case
            models[mode].zero_grad(set_to_none=True)
            began = time.process_time()
            loss_of(models[mode], dtype, cached).backward()
            if turn:  # the first one warms up
                seconds[case].append(time.process_time() - began)
    parameters = count_parameters(models["none"])
    machine = platform.processor() or platform.machine()
    print(f"{parameters / 1e6:.1f}M parameters, {ROWS} sequences of {LENGTH}")
    print(f"{machine}, {options.threads} threads, torch {torch.__version__}\n")
    print("| precision | kept | CPU seconds | times none | between the passes, MB | peak, MB |")
    print("|---|---|---|---|---|---|")
    rows = []
    for case in CASES:
        mode, dtype, cached = case
        between, peak = memory(models[mode], dtype, cached)
        least = min(seconds[case])
        ratio = least / min(seconds["none", dtype, True])
        name = mode if cached else f"{mode}, no cache of casts"
        print(f"| {dtype} | {name} | {least:.2f} | {ratio:.2f} | {between / 1e6:.0f} | {peak / 1e6:.0f} |")
        rows.append(
            {"precision": dtype, "kept": name, "cpu_seconds": least, "between_bytes": between, "peak_bytes": peak}
        )
    print("RESULT", json.dumps({"parameters": parameters, "rows": rows}))


if __name__ == "__main__":
    main()
