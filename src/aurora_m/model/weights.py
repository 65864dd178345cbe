"""Models in from folders in the Hugging Face layout: safetensors only, streamed, every tensor accounted for."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ..workspace import DataError
from .config import ModelConfig
from .decoder import Decoder
from .families import TensorMap, checkpoint_names, is_inert_tensor, tensor_maps
from .hf_config import config_from_hf
from .initial import copy_part

INDEX_FILE = "model.safetensors.index.json"
WEIGHTS_FILE = "model.safetensors"
_FLOAT_TYPES = ("F16", "BF16", "F32", "F64")
_LISTED = 8
_COMPARED_ROWS = 1024


def load_model(folder: Path, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Decoder:
    """The model in a folder of config.json and safetensors.

    Raises:
        DataError: the folder lacks a file or holds a damaged one; the config asks for what is not implemented; tensors
            are missing, unexpected, of another shape, or not of a floating type. Every such tensor is named.
    """
    with torch.device("meta"):
        model = Decoder(read_config(folder))
    model = model.to(dtype).to_empty(device=device)
    load_weights(model, folder)
    return model


def read_config(folder: Path) -> ModelConfig:
    """The configuration of the model in a folder, or in a config.json itself; raises DataError as `load_model` does."""
    path = folder if folder.is_file() else folder / "config.json"
    return config_from_hf(_read_json(path), str(path))


@torch.no_grad()
def load_weights(model: nn.Module, folder: Path, share: float = 1.0) -> None:
    """Fills a model's parameters from a folder's safetensors, one tensor at a time.

    With a `share` below 1 parameters only go that far towards the folder's: `share` of these and the rest of their own.

    `model` is a Decoder, or holds a part of one's parameters under their names (a pipeline stage) and its `config`.

    Beyond the parameters it takes the memory of the largest tensor. Parameters may be sharded (DTensor): each process
    then reads the files and keeps its part, so that no process ever holds the whole model.

    Raises:
        DataError: as `load_model` does; where the tensors do not fit, nothing was filled.
    """
    config: Any = model.config
    headers = stored_tensors(folder)
    maps = tensor_maps(config)
    names = checkpoint_names(config, [name for file in headers.values() for name in file])
    with torch.device("meta"):
        whole = Decoder(config)
    _account(folder, whole, maps, {names[name]: header for file in headers.values() for name, header in file.items()})
    parameters = dict(model.named_parameters())
    embedding = parameters.get("embed_tokens.weight")
    by_name = {tensor_map.name: tensor_map for tensor_map in maps}
    for stored, tensor in _stream(folder, headers):
        name = names[stored]
        if name in by_name:
            _fill(by_name[name], tensor, parameters, share)
            if share < 1 and "embed_tokens.weight" in by_name[name].parts:
                embedding = tensor  # a head is compared with the embedding it came with
        elif not is_inert_tensor(name) and embedding is not None and not _equals_embedding(tensor, embedding):
            # Only a head beside a tied embedding comes here, and after the embedding: `_stream` sees to it.
            raise DataError(
                f"{folder}: config.json ties the embeddings, but {name} differs from the embedding; "
                f"set tie_word_embeddings to false there"
            )


def stored_tensors(folder: Path) -> dict[str, dict[str, tuple[list[int], str]]]:
    """Shape and dtype of every tensor of a checkpoint, by file and name; raises DataError as `load_model` does."""
    return _read_headers(folder, _tensor_files(folder))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} is missing; a model's folder holds config.json and *.safetensors") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}); get the file again") from None
    if not isinstance(value, dict):
        raise DataError(f"{path} holds a {type(value).__name__}, expected an object")
    return value


def _tensor_files(folder: Path) -> list[str]:
    """The names of the safetensors files of a checkpoint: by the index where there is one."""
    if (folder / INDEX_FILE).is_file():
        weight_map = _read_json(folder / INDEX_FILE).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise DataError(f"{folder / INDEX_FILE} has no weight_map; get the file again")
        names = sorted({str(name) for name in weight_map.values()})
        for name in names:
            if Path(name).name != name:
                raise DataError(f"{folder / INDEX_FILE} names {name!r}, which is not a file of its own folder")
            if not (folder / name).is_file():
                raise DataError(f"{folder / name} is missing, though {INDEX_FILE} names it; get the file again")
        return names
    if (folder / WEIGHTS_FILE).is_file():
        return [WEIGHTS_FILE]
    names = sorted(path.name for path in folder.glob("*.safetensors"))
    if names:
        raise DataError(
            f"{folder} holds {', '.join(names[:_LISTED])} but neither {WEIGHTS_FILE} nor {INDEX_FILE}; add the index"
        )
    pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in folder.glob(pattern))
    if pickles:
        raise DataError(
            f"{folder} holds its weights as pickles only ({', '.join(pickles[:_LISTED])}), which can run code and are "
            f"never loaded; convert them to safetensors first"
        )
    raise DataError(f"{folder} holds no {WEIGHTS_FILE}; expected a model in the Hugging Face layout")


def _read_headers(folder: Path, files: list[str]) -> dict[str, dict[str, tuple[list[int], str]]]:
    """Shape and dtype of every tensor, by file and name."""
    headers: dict[str, dict[str, tuple[list[int], str]]] = {}
    seen: dict[str, str] = {}
    for file_name in files:
        headers[file_name] = {}
        try:
            with safe_open(folder / file_name, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 -- safe_open is no mapping
                    part = file.get_slice(name)
                    headers[file_name][name] = (list(part.get_shape()), part.get_dtype())
        except (SafetensorError, OSError, ValueError) as error:
            raise DataError(f"{folder / file_name} is damaged or cut short ({error}); get the file again") from None
        for name in headers[file_name]:
            if name in seen:
                raise DataError(f"{folder}: tensor {name} is both in {seen[name]} and in {file_name}; remove one")
            seen[name] = file_name
    return headers


def _account(folder: Path, model: Decoder, maps: list[TensorMap], found: dict[str, tuple[list[int], str]]) -> None:
    """Refuses a checkpoint whose tensors (shape and dtype by name) are not exactly those of the model."""
    shapes = {name: list(parameter.shape) for name, parameter in model.named_parameters()}
    expected: dict[str, list[int]] = {}
    for tensor_map in maps:
        parts = [shapes[part] for part in tensor_map.parts]
        expected[tensor_map.name] = [sum(shape[0] for shape in parts), *parts[0][1:]]
    optional = {"lm_head.weight": list(model.head_weight.shape)} if model.config.tied_embeddings else {}
    known = expected | optional
    problems = {
        "missing": [name for name in expected if name not in found],
        "unexpected": [name for name in found if name not in known and not is_inert_tensor(name)],
        "wrong shape": [
            f"{name} is {shape}, expected {known[name]}"
            for name, (shape, _) in found.items()
            if name in known and shape != known[name]
        ],
        "not floating point": [
            f"{name} is {kind}" for name, (_, kind) in found.items() if name in known and kind not in _FLOAT_TYPES
        ],
    }
    lines = [f"{len(names)} {problem}: {listed(names)}" for problem, names in problems.items() if names]
    if lines:
        raise DataError(f"{folder}: the weights do not fit config.json. " + ". ".join(lines))


def listed(names: list[str]) -> str:
    """The first of many names, for a message."""
    more = f", and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _stream(folder: Path, headers: dict[str, dict[str, tuple[list[int], str]]]) -> Iterator[tuple[str, Tensor]]:
    """Tensors one at a time; a head comes last, so that a tied one can be compared with the embedding."""
    for last in (False, True):
        for file_name, names in headers.items():
            for name in names:
                if (name == "lm_head.weight") == last:
                    # Opened anew for each: a file's pages count as this process's memory for as long as it is mapped.
                    with safe_open(folder / file_name, framework="pt") as file:
                        yield name, file.get_tensor(name)


def _fill(tensor_map: TensorMap, tensor: Tensor, parameters: dict[str, torch.nn.Parameter], share: float) -> None:
    """Copies a checkpoint's tensor into those of our parameters that are here; makes no other copy of it.

    Parts of sharded ones are taken whole, whatever the share.
    """
    targets = [parameters[part] for part in tensor_map.parts if part in parameters]
    if not targets:  # all the parts of a tensor belong to one layer, so they are here or not together
        return
    for target, part in zip(targets, tensor_map.split(tensor, [len(target) for target in targets]), strict=True):
        if isinstance(target, DTensor):
            copy_part(target, part.flatten(0, 1))
        elif share == 1:
            tensor_map.grouped(target).copy_(part)
        else:
            tensor_map.grouped(target).lerp_(part.to(target), share)


def _equals_embedding(tensor: Tensor, embedding: Tensor) -> bool:
    """Whether a stored head equals the embedding; compared in pieces, for there may be no room for another copy."""
    if isinstance(embedding, DTensor):
        embedding = embedding.full_tensor()
    embedding = embedding[: len(tensor)]  # padding is stored nowhere
    pairs = zip(tensor.split(_COMPARED_ROWS), embedding.split(_COMPARED_ROWS), strict=True)
    return all(torch.equal(theirs.to(ours.dtype), ours.detach().cpu()) for theirs, ours in pairs)
