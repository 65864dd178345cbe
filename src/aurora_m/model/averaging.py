"""Models between models: interpolation of two, the mean of several, and whether such a thing has a meaning at all."""

from pathlib import Path
from typing import Any

import torch

from ..workspace import DataError, read_json
from .decoder import Decoder
from .weights import load_model, load_weights, read_config

# What decides which text becomes which ids; the rest of a tokenizer.json is padding and truncation.
_TOKENIZER_PARTS = ("added_tokens", "normalizer", "pre_tokenizer", "model")


def interpolate(
    base_folder: Path, final_folder: Path, base_share: float, device: torch.device | str = "cpu"
) -> Decoder:
    """A model each of whose weights is `base_share` of the base's and the rest of the final one's, float32.

    At 0 and 1 it is one of the two, bit by bit. One model is in memory, and one tensor of the other (Wortsman et al.
    2022, "Robust fine-tuning of zero-shot models").

    Raises:
        DataError: a folder is damaged, or the two models cannot be merged.
        ValueError: the share is not between 0 and 1.
    """
    if not 0 <= base_share <= 1:
        raise ValueError(f"base_share {base_share} is not between 0 and 1")
    check_mergeable(base_folder, final_folder)
    model = load_model(final_folder, device=device)
    if base_share > 0:
        load_weights(model, base_folder, base_share)
    return model


def average(folders: list[Path], device: torch.device | str = "cpu") -> Decoder:
    """The mean of several models' weights, float32; two models at most are in memory, one of them tensor by tensor.

    Raises:
        DataError: a folder is damaged, or the models cannot be merged.
        ValueError: there are no folders.
    """
    if not folders:
        raise ValueError("no models to average")
    for folder in folders[1:]:
        check_mergeable(folders[0], folder)
    model = load_model(folders[0], device=device)
    for number, folder in enumerate(folders[1:], start=2):
        load_weights(model, folder, 1 / number)
    return model


def check_mergeable(base_folder: Path, final_folder: Path) -> None:
    """Refuses two models whose weights do not correspond one to one: other shapes, or another tokenizer.

    Raises:
        DataError: with what differs.
    """
    base, final = (_shape(folder) for folder in (base_folder, final_folder))
    differing = [f"{key} {base[key]} and {final[key]}" for key in base if base[key] != final[key]]
    if differing:
        raise DataError(
            f"{base_folder} and {final_folder} cannot be merged: {', '.join(differing)}; weights correspond only "
            "between models of one architecture, one of which was trained on from the other"
        )
    parts = [_tokenizer_parts(folder) for folder in (base_folder, final_folder)]
    for folder, part in zip((base_folder, final_folder), parts, strict=True):
        if part is None and parts[0] != parts[1]:
            raise DataError(f"{folder} holds no tokenizer.json: whether its tokens are the other model's is unknown")
    if parts[0] != parts[1]:
        raise DataError(
            f"{base_folder} and {final_folder} cannot be merged: their tokenizers differ, so that a row of the "
            "embedding is another token in each; a merge needs a base with the final model's own tokenizer"
        )


def _shape(folder: Path) -> dict[str, Any]:
    return read_config(folder).model_dump(exclude={"vocab_rows"})  # padding is stored nowhere


def _tokenizer_parts(folder: Path) -> list[Any] | None:
    path = folder / "tokenizer.json"
    if not path.is_file():
        return None
    tokenizer = read_json(path)
    return [tokenizer.get(part) for part in _TOKENIZER_PARTS]


def same_weights(folder: Path, other: Path) -> bool:
    """Whether two folders hold the same model in float32, however they store it.

    Raises:
        DataError: a folder is damaged.
    """
    if _shape(folder) != _shape(other):
        return False
    model, second = load_model(folder), load_model(other)
    pairs = zip(model.parameters(), second.parameters(), strict=True)
    return all(torch.equal(one, two) for one, two in pairs)
