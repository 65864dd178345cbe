"""Gradients of every family on two ranks beside those of one process; run by test_parallel.py in an interpreter of its own.

python -m tests.training.parallel_families OUT.json
"""

import json
import os
import sys
from pathlib import Path
from typing import get_args

import torch
import torch.distributed as dist
from tests.training.parallel_job import find_port, set_rank
from torch import Tensor
from torch.distributed.tensor import DTensor

from aurora_m.model import ArchitectureConfig, Decoder
from aurora_m.model.config import Family
from aurora_m.training import ParallelConfig, build_mesh, decoder_loss, parallelize
from aurora_m.training.gradients import settle_gradients
from aurora_m.training.pipelining import Pipeline

LENGTH, VOCABULARY = 16, 301
# Family and changes: also key heads fewer than ranks, with both kinds of norm of them.
MODELS = [(family, {}) for family in get_args(Family)] + [("olmo2", {"kv_heads": 1}), ("qwen3", {"kv_heads": 1})]
LAYOUTS = [{"tensor": 2}, {"tensor": 2, "sequence": False}, {"pipeline": 2}]


def make_model(family: str, changes: dict) -> Decoder:
    """Norms and biases are random too: at their first values an error in them would not show."""
    window = {"sliding_window": 5} if family == "mistral" else {}
    sizes = {"layers": 2, "hidden_size": 32, "heads": 4, "max_positions": 64} | window | changes
    model = Decoder(ArchitectureConfig(family=family, **sizes).model_config_for(VOCABULARY))
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        scale = 0.1 if parameter.dim() == 1 else 0.05
        parameter.data = scale * torch.randn(parameter.shape, generator=generator) + name.endswith("norm.weight")
    return model


def make_batch() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ids, targets, positions and document numbers: two documents a row, some targets not scored."""
    generator = torch.Generator().manual_seed(1)
    ids, targets = (torch.randint(0, VOCABULARY, (4, LENGTH), generator=generator) for _ in range(2))
    targets[torch.rand(targets.shape, generator=generator) < 0.2] = -100
    slots = torch.arange(LENGTH)
    positions = torch.where(slots < 7, slots, slots - 7)
    return ids, targets, positions.expand(4, -1).contiguous(), (slots >= 7).int().expand(4, -1).contiguous()


def gradients(model: Decoder | Pipeline) -> dict[str, Tensor]:
    ids, targets, positions, documents = make_batch()
    if isinstance(model, Pipeline):
        model.backward((ids, targets, positions, documents), 1, 0.01, torch.float32)
    else:
        hidden = model(ids, positions=positions, document_ids=documents)
        decoder_loss(model, hidden, targets, 0.01)[0].backward()
    settle_gradients(list(model.parameters()))
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {
        name: one.full_tensor() if isinstance(one, DTensor) else one for name, one in found.items() if one is not None
    }


def largest_difference(split: dict[str, Tensor], whole: dict[str, Tensor]) -> float:
    """Relative to each parameter's largest gradient; biases of keys, whose gradient is rounding, to 1e-3."""
    assert split
    return max(float((one - whole[name]).abs().max() / (whole[name].abs().max() + 1e-3)) for name, one in split.items())


def compare(out: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    found = {}
    for family, changes in MODELS:
        whole = gradients(make_model(family, changes))
        for layout in LAYOUTS:
            config = ParallelConfig(**layout)
            split = gradients(parallelize(make_model(family, changes), build_mesh(config, "cpu", 2), config))
            worst = torch.tensor(largest_difference(split, whole))
            dist.all_reduce(worst, dist.ReduceOp.MAX)
            found[f"{family} {changes} {layout}"] = float(worst)
    if dist.get_rank() == 0:
        out.write_text(json.dumps(found))
    dist.destroy_process_group()


def main() -> None:
    port, child = find_port(), os.fork()
    set_rank(int(child == 0), 2, port)
    compare(Path(sys.argv[1]))
    if child:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
