"""The mean of the last checkpoints of a phase, as a model's folder."""

from pathlib import Path
from typing import Any

import torch

from aurora_m.model import Decoder, LoraConfig, adapted_layers, add_adapters, load_model, save_model
from aurora_m.workspace import DataError, Progress, atomic_folder

from .checkpoint import list_checkpoints, load_checkpoint, read_record


def last_checkpoints(phase_folder: Path, count: int) -> tuple[list[Path], list[Any]]:
    """The last `count` checkpoints of a phase, or as many as there are, oldest first; and what identifies them."""
    found = []
    for folder in reversed(list_checkpoints(phase_folder)):
        try:
            found.append((folder, read_record(folder)["files"]))
        except DataError:
            continue  # the next older one takes its place
        if len(found) == count:
            break
    found.reverse()
    return [folder for folder, _ in found], [files for _, files in found]


@torch.no_grad()
def export_average(
    checkpoints: list[Path],
    layout: Path,
    out: Path,
    *,
    lora: LoraConfig | None,
    tokenizer: Path,
    eod_id: int,
    progress: Progress,
) -> None:
    """Writes the mean weights of checkpoints into `out` in the Hugging Face layout; damaged ones are left out, aloud.

    Two models are in memory. Beside adapters, a checkpoint holds nothing else: what is averaged is the merged matrices,
    as the product of two means is not the mean of products.

    Args:
        layout: a model's folder with the shapes of the checkpoints, and beside adapters the frozen weights.

    Raises:
        DataError: all checkpoints are damaged.
        AuroraError: they hold another model, or the disk is full.
    """
    model = load_model(layout)
    mean = load_model(layout) if lora else Decoder(model.config)
    if lora:
        add_adapters(model, lora, seed=0)
    live = {f"model.{name}": parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    adapted, parameters = adapted_layers(model), dict(model.named_parameters())
    count = 0
    for folder in checkpoints:
        try:
            load_checkpoint(folder, dict(live))
        except DataError as error:
            progress.say(f"warning: {error}; it is left out of the mean")
            continue
        count += 1
        for name, target in mean.named_parameters():
            weight = adapted[name].merged_weight() if name in adapted else parameters[name]
            if count == 1:
                target.copy_(weight)
            else:
                target.lerp_(weight.to(target), 1 / count)
    if not count:
        raise DataError(f"none of the last {len(checkpoints)} checkpoints in {checkpoints[0].parent} can be read")
    with atomic_folder(out) as temporary:
        save_model(mean, temporary, tokenizer, eod_id=eod_id)
