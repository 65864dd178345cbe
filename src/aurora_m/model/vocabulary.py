"""A checkpoint with a larger vocabulary: everything as it was, tensor by tensor, and rows for new tokens."""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from ..workspace import DataError
from .config import ModelConfig
from .decoder import Decoder
from .export import write_model
from .families import checkpoint_names, tensor_maps
from .weights import read_config, stored_tensors

_MATRICES = ("embed_tokens.weight", "head.weight")
_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "F64": torch.float64}


def write_with_new_rows(
    base: Path,
    folder: Path,
    vocab_size: int,
    new_rows: Callable[[str, Tensor], Tensor],
    first_new_id: int,
    tokenizer_folder: Path,
    eod_id: int,
) -> ModelConfig:
    """Writes the model in `base` to `folder` with at least `vocab_size` tokens; holds one tensor at a time.

    A base whose vocabulary is padded to `vocab_size` or more keeps its size; from `first_new_id` on its rows are
    replaced.

    Args:
        new_rows: from a matrix's name and the rows of the old tokens, float32 (first_new_id, hidden), makes those of
            the new ones, (vocab_size - first_new_id, hidden). Asked for the embedding, and for the head where not tied.

    Raises:
        DataError: a file of the base is damaged, or the base has fewer rows than `first_new_id`.
        AuroraError: the disk is full.
    """
    config = read_config(base)
    if config.vocab_size < first_new_id:
        raise DataError(
            f"{base} has {config.vocab_size} tokens and the tokenizer that is extended {first_new_id}; they do not "
            "belong together"
        )
    size = max(vocab_size, config.vocab_size)
    grown = ModelConfig.model_validate(config.model_dump() | {"vocab_size": size, "vocab_rows": None})

    def extended() -> Iterator[Tensor]:
        for name, tensor in read_parameters(base, config):
            yield (
                _with_rows(tensor, size, first_new_id, new_rows(name, tensor[:first_new_id].float()))
                if (name in _MATRICES)
                else tensor
            )

    write_model(grown, extended(), folder, tokenizer_folder, eod_id=eod_id, dtype=_stored_dtype(base))
    return grown


def _with_rows(old: Tensor, size: int, first_new_id: int, new: Tensor) -> Tensor:
    grown = old.new_zeros(size, old.size(1))
    grown[: len(old)] = old
    grown[first_new_id : first_new_id + len(new)] = new.to(old.dtype)
    return grown


def read_parameters(folder: Path, config: ModelConfig) -> Iterator[tuple[str, Tensor]]:
    """Our parameters' names and values from a folder's safetensors, in the order in which `write_model` takes them.

    Raises:
        DataError: a file or a tensor is missing or damaged.
    """
    files = {name: file for file, names in stored_tensors(folder).items() for name in names}
    stored = {whole: name for name, whole in checkpoint_names(config, list(files)).items()}
    with torch.device("meta"):
        rows = {name: len(parameter) for name, parameter in Decoder(config).named_parameters()}
    for tensor_map in tensor_maps(config):
        if tensor_map.name not in stored:
            raise DataError(f"{folder}: tensor {tensor_map.name} is missing; get the files again")
        name = stored[tensor_map.name]
        with safe_open(folder / files[name], framework="pt") as file:
            tensor = file.get_tensor(name)
        for part, value in zip(
            tensor_map.parts, tensor_map.split(tensor, [rows[part] for part in tensor_map.parts]), strict=True
        ):
            yield part, value.flatten(0, 1)


def _stored_dtype(folder: Path) -> torch.dtype:
    """The one that all tensors of a checkpoint have; float32 where they differ."""
    kinds = {kind for names in stored_tensors(folder).values() for _, kind in names.values() if kind in _DTYPES}
    return _DTYPES[kinds.pop()] if len(kinds) == 1 else torch.float32
