"""Training speed of our decoder against transformers' GPTBigCodeForCausalLM: same weights, same tokens, same run.

Forward and backward in float32 of a model of 5.1M parameters (hidden 256, 4 layers, 4 heads, multi-query, vocabulary
8192), batch 8, sequence 512, on 2 threads. The two alternate, so that what else the machine does falls on both; the
median repetition counts. The third row packs several documents into a sequence, which transformers' row does not.

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


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()

    ours, theirs = build_models()
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, VOCABULARY, (BATCH, LENGTH), generator=generator)
    targets = torch.cat([tokens[:, 1:], torch.full((BATCH, 1), IGNORED)], dim=1)
    # About four documents in each sequence.
    documents = torch.randint(0, LENGTH // 4, (BATCH, LENGTH), generator=generator).eq(0).int().cumsum(dim=1)
    scale = 1 / targets.ne(IGNORED).sum().item()

    def our_step(document_ids: torch.Tensor | None = None) -> torch.Tensor:
        ours.zero_grad()
        loss, _ = chunked_loss(ours(tokens, document_ids=document_ids), ours.head_weight, targets, scale)
        loss.backward()
        return loss.detach()

    def their_step() -> torch.Tensor:
        theirs.zero_grad()
        loss = theirs(input_ids=tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        return loss.detach()

    difference = (our_step() - their_step()).abs().item()
    assert difference < 1e-4, f"the two losses differ by {difference}: not the same model"
    peer = f"transformers {transformers.__version__}"
    packed = "aurora-m, packed documents"
    seconds = measure(
        {peer: their_step, "aurora-m": our_step, packed: lambda: our_step(documents)}, arguments.repetitions
    )

    speed = {name: BATCH * LENGTH / statistics.median(values) for name, values in seconds.items()}
    parameters = count_parameters(ours)
    print(f"{parameters / 1e6:.1f}M parameters, batch {BATCH} x {LENGTH}, float32, {arguments.threads} threads,")
    print(
        f"torch {torch.__version__}, {platform.machine()}, {time.strftime('%Y-%m-%d')}; losses differ by {difference:.1e}\n"
    )
    print(f"{'forward + backward':<28}{'tokens/s':>10}{'ratio':>8}")
    for name, tokens_per_second in speed.items():
        print(f"{name:<28}{tokens_per_second:>10,.0f}{tokens_per_second / speed[peer]:>8.2f}")
    result = {
        "benchmark": "model",
        "parameters": parameters,
        "tokens_per_second": round(speed["aurora-m"]),
        "tokens_per_second_packed": round(speed[packed]),
        "tokens_per_second_peer": round(speed[peer]),
        "ratio": round(speed["aurora-m"] / speed[peer], 3),
        "ratio_packed": round(speed[packed] / speed[peer], 3),
    }
    print("RESULT " + json.dumps(result))


if __name__ == "__main__":
    main()
