"""Training speed of our decoder against transformers' GPTBigCodeForCausalLM: same weights, same tokens, same run.

Forward and backward of a model of 5.0M parameters (hidden 256, 4 layers, 4 heads, multi-query, vocabulary 8192),
batch 8, sequence 512, on 2 threads, in float32 and under bfloat16 autocast. The two take turns, so that what else the
machine does falls on both; the median repetition counts. `packed` rows hold about four documents in each sequence and
keep attention inside them, which transformers' rows do not.

    python benchmarks/model.py [--repetitions 7] [--threads 2]
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers

from aurora_m.model import (
    IGNORED,
    ArchitectureConfig,
    Decoder,
    chunked_loss,
    count_parameters,
    save_model,
)

BATCH, LENGTH, VOCABULARY = 8, 512, 8192
PEER = f"transformers {transformers.__version__}"


def build_models() -> tuple[Decoder, torch.nn.Module]:
    """Our model and transformers' with the same weights."""
    architecture = ArchitectureConfig(layers=4, hidden_size=256, heads=4, max_positions=LENGTH)
    ours = Decoder(architecture.model_config_for(VOCABULARY))
    ours.init_weights(seed=0)
    with tempfile.TemporaryDirectory() as folder:
        save_model(ours, Path(folder), eod_id=0)
        theirs = transformers.AutoModelForCausalLM.from_pretrained(folder)
    return ours, theirs.train()


def measure(steps: dict[str, Callable[[], torch.Tensor]], repetitions: int) -> dict[str, list[float]]:
    """Seconds of each repetition of each step; the first round warms up and is thrown away."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for repetition in range(repetitions + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if repetition:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def make_steps(precision: str) -> dict[str, Callable[[], torch.Tensor]]:
    """What is compared, each a forward and backward pass that returns its loss: transformers, ours, ours packed."""
    ours, theirs = build_models()
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, VOCABULARY, (BATCH, LENGTH), generator=generator)
    targets = torch.cat([tokens[:, 1:], torch.full((BATCH, 1), IGNORED)], dim=1)
    documents = torch.randint(0, LENGTH // 4, (BATCH, LENGTH), generator=generator).eq(0).int().cumsum(dim=1)
    scale = 1 / targets.ne(IGNORED).sum().item()

    def autocast() -> torch.autocast:
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16")

    def our_step(document_ids: torch.Tensor | None = None) -> torch.Tensor:
        ours.zero_grad()
        with autocast():
            loss, _ = chunked_loss(ours(tokens, document_ids=document_ids), ours.head_weight, targets, scale)
        loss.backward()
        return loss.detach()

    def their_step() -> torch.Tensor:
        theirs.zero_grad()
        with autocast():
            loss = theirs(input_ids=tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        return loss.detach()

    return {PEER: their_step, "aurora-m": our_step, "aurora-m, packed": lambda: our_step(documents)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()

    parameters = count_parameters(build_models()[0])
    print(f"{parameters / 1e6:.1f}M parameters, batch {BATCH} x {LENGTH}, {arguments.threads} threads,", end=" ")
    print(f"torch {torch.__version__}, {platform.machine()}, {time.strftime('%Y-%m-%d')}")
    result: dict[str, object] = {"benchmark": "model", "parameters": parameters, "threads": arguments.threads}
    for precision, tolerance in (("float32", 1e-4), ("bfloat16", 1e-2)):
        steps = make_steps(precision)
        difference = (steps["aurora-m"]() - steps[PEER]()).abs().item()
        assert difference < tolerance, f"the losses differ by {difference}: not the same model"
        seconds = measure(steps, arguments.repetitions)
        speed = {name: BATCH * LENGTH / statistics.median(values) for name, values in seconds.items()}
        print(f"\n{precision} (losses differ by {difference:.0e})".ljust(41) + f"{'tokens/s':>10}{'ratio':>8}")
        for name, tokens_per_second in speed.items():
            print(f"  {name:<38}{tokens_per_second:>10,.0f}{tokens_per_second / speed[PEER]:>8.2f}")
        result[precision] = {
            "tokens_per_second": round(speed["aurora-m"]),
            "tokens_per_second_packed": round(speed["aurora-m, packed"]),
            "tokens_per_second_peer": round(speed[PEER]),
            "ratio": round(speed["aurora-m"] / speed[PEER], 3),
            "ratio_packed": round(speed["aurora-m, packed"] / speed[PEER], 3),
        }
    print("RESULT " + json.dumps(result))


if __name__ == "__main__":
    main()
