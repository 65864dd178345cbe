"""Attention on one CPU core: our kernels, and PyTorch's `scaled_dot_product_attention` with a mask and causal; one run.

Forward and backward of one layer's attention. Documents begin at random, of so many tokens on average; ours and the
additive mask keep to them, causal attention does not know of them and computes half of all pairs. Heads that share
keys go to PyTorch as `enable_gqa`. The three take turns; the median of the CPU milliseconds counts, and the compiling
of our kernels comes before. `error` is the largest difference of our gradients from the mask's, relative to the
largest entry; in bfloat16 it is PyTorch's rounding, since ours are computed in float32.

    python benchmarks/attention.py [--repetitions 7]
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from aurora_m.model import ArchitectureConfig
from aurora_m.model.attention import attention_mask, runs_of_keys
from aurora_m.model.cpu_attention import attend_runs

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Case:
    """Sizes of one layer's attention; `document` is the mean tokens of a document, None: one document a row."""

    rows: int
    length: int
    heads: int
    key_heads: int
    document: int | None
    dtype: torch.dtype = torch.float32
    depth: int = 64

    def __str__(self) -> str:
        heads = f"{self.heads} heads" + ("" if self.heads == self.key_heads else f" on {self.key_heads}")
        documents = "one document a row" if self.document is None else f"documents of {self.document}"
        dtype = "bfloat16, " if self.dtype == torch.bfloat16 else ""
        return f"{dtype}{self.rows} x {self.length:,}, {heads}, {documents}"


CASES = (
    Case(8, 512, 10, 10, None),
    Case(8, 512, 10, 10, 128),
    Case(8, 512, 4, 4, 20),
    Case(8, 512, 10, 1, 600, torch.bfloat16),
    Case(4, 2048, 10, 2, 600),
)


def contenders(case: Case) -> tuple[list[Tensor], dict[str, Callable[..., Tensor]]]:
    """Queries, keys and values (rows, length, heads, depth), and what makes of them what was attended to."""
    generator = torch.Generator().manual_seed(0)

    def made(heads: int) -> Tensor:
        part = torch.randn(case.rows, case.length, heads, case.depth, generator=generator)
        return part.to(case.dtype).requires_grad_()

    parts = [made(case.heads), made(case.key_heads), made(case.key_heads)]
    documents = torch.zeros(case.rows, case.length, dtype=torch.int32)
    if case.document is not None:
        documents = (torch.rand(documents.shape, generator=generator) < 1 / case.document).int().cumsum(dim=1)
    config = ArchitectureConfig(
        family="llama", layers=1, hidden_size=case.heads * case.depth, heads=case.heads, max_positions=case.length
    ).model_config_for(64)
    firsts = runs_of_keys(config, None, case.length, documents, CPU).firsts
    mask = attention_mask(config, None, case.length, documents, documents, case.dtype, CPU)

    def library(*parts: Tensor, **settings) -> Tensor:
        queries, keys, values = (part.transpose(1, 2) for part in parts)
        shared = case.heads != case.key_heads
        return F.scaled_dot_product_attention(queries, keys, values, enable_gqa=shared, **settings).transpose(1, 2)

    return parts, {
        "ours": lambda *parts: attend_runs(*parts, firsts, None),
        "mask": lambda *parts: library(*parts, attn_mask=mask),
        "causal": lambda *parts: library(*parts, is_causal=True),
    }


def measure(case: Case, repetitions: int) -> dict[str, float | str]:
    """Median CPU milliseconds of each contender, and how far our gradients are from the mask's."""
    parts, ways = contenders(case)
    weights = torch.randn(parts[0].shape, generator=torch.Generator().manual_seed(1)).to(case.dtype)
    milliseconds: dict[str, list[float]] = {name: [] for name in ways}
    gradients: dict[str, tuple[Tensor, ...]] = {}
    for repetition in range(repetitions + 1):
        for name, attend in ways.items():
            started = time.process_time()
            gradients[name] = torch.autograd.grad(attend(*parts), parts, weights)
            if repetition:
                milliseconds[name].append((time.process_time() - started) * 1e3)
    pairs = zip(gradients["ours"], gradients["mask"], strict=True)
    error = max(float((own - other).abs().max() / other.abs().max()) for own, other in pairs)
    return {
        "case": str(case),
        **{name: statistics.median(taken) for name, taken in milliseconds.items()},
        "error": error,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{platform.processor() or platform.machine()}, 1 thread, torch {torch.__version__}; CPU milliseconds\n")
    print(f"{'':<54}{'ours':>8}{'mask':>8}{'causal':>8}{'mask/ours':>11}{'causal/ours':>13}{'error':>10}")
    rows = []
    for case in CASES:
        row = measure(case, options.repetitions)
        rows.append(row)
        ours, mask, causal = (float(row[name]) for name in ("ours", "mask", "causal"))
        print(
            f"{row['case']:<54}{ours:>8,.0f}{mask:>8,.0f}{causal:>8,.0f}{mask / ours:>11.1f}{causal / ours:>13.1f}"
            f"{row['error']:>10.1e}"
        )
    print("RESULT " + json.dumps({"torch": torch.__version__, "threads": 1, "rows": rows}))


if __name__ == "__main__":
    main()
