"""The loss over a vocabulary: ours, PyTorch's `linear_cross_entropy` in chunks, and plain logits; one run.

Hidden states (4, 512, 640), a vocabulary of 49,152, float32 and bfloat16, forward and backward to hidden states and
weight. Peak memory is what is live at the highest point beyond the inputs, by PyTorch's allocation events. Errors are
the largest difference of the weight's gradient from the plain loss in float64, relative to its largest entry. The three
take turns; the median counts.

    python benchmarks/loss.py [--repetitions 5] [--threads 2]
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile

from aurora_m.model import chunked_loss

TOKENS, WIDTH, VOCABULARY = (4, 512), 640, 49_152


def plain(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy((hidden @ weight.T).flatten(0, 1).float(), targets.flatten())


def ours(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return chunked_loss(hidden, weight, targets, 1 / targets.numel())[0]


def library(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    options = torch.nn.LinearCrossEntropyOptions()
    return F.linear_cross_entropy(hidden.flatten(0, 1), weight, targets.flatten(), options=options)


def peak_bytes(step: Callable[[], object]) -> int:
    """The most that is live at once beyond what was live before, of all allocations in `step`."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    live = highest = 0
    for event in sorted(profiler.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            live += event.nbytes()
            highest = max(highest, live)
    return highest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(*TOKENS, WIDTH, generator=generator)
    weight = torch.randn(VOCABULARY, WIDTH, generator=generator) * 0.05
    targets = torch.randint(0, VOCABULARY, TOKENS, generator=generator)
    ways = {"ours": ours, "plain": plain}
    if hasattr(F, "linear_cross_entropy"):
        ways["linear_cross_entropy"] = library
    exact = torch.autograd.grad(plain(hidden.double(), (w := weight.double().requires_grad_()), targets), w)[0]
    print(f"{'':<32} {'seconds':>8} {'of ours':>8} {'peak MiB':>9} {'error':>8}")
    for dtype in (torch.float32, torch.bfloat16):
        inputs = [hidden.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_()]

        def run(way: Callable, inputs: list[torch.Tensor] = inputs) -> list[torch.Tensor]:
            return list(torch.autograd.grad(way(*inputs, targets), inputs))

        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for repetition in range(options.repetitions + 1):
            for name, way in ways.items():
                start = time.perf_counter()
                run(way)
                if repetition:
                    seconds[name].append(time.perf_counter() - start)
        base = statistics.median(seconds["ours"])
        for name, way in ways.items():
            median = statistics.median(seconds[name])
            error = (run(way)[1].double() - exact).abs().max() / exact.abs().max()
            peak = peak_bytes(lambda way=way: run(way)) / 2**20
            label = f"{name} {str(dtype).removeprefix('torch.')}"
            print(f"{label:<32} {median:>8.2f} {median / base:>8.2f} {peak:>9,.0f} {error:>8.1e}")


if __name__ == "__main__":
    main()
