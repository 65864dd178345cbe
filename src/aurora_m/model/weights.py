"""Models in and out of folders in the Hugging Face layout: safetensors only, streamed, every tensor accounted for."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from ..workspace import AuroraError, DataError, write_json
from .config import ModelConfig
from .decoder import Decoder
from .families import TensorMap, checkpoint_names, is_inert_tensor, tensor_maps
from .hf_config import config_from_hf, config_to_hf
from .lora import AdaptedLinear, adapted_layers

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_FLOAT_TYPES = ("F16", "BF16", "F32", "F64")
_LISTED = 8
_COMPARED_ROWS = 1024
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
# What a tokenizer's folder may hold; nothing else is copied into a model's folder.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
)


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
def load_weights(model: nn.Module, folder: Path) -> None:
    """Fills a model's parameters from a folder's safetensors, one tensor at a time.

    `model` is a Decoder, or holds a part of one's parameters under their names (a pipeline stage) and its `config`.

    Beyond the parameters it takes the memory of the largest tensor. Parameters may be sharded (DTensor): each process
    then reads the files and keeps its part, so that no process ever holds the whole model.

    Raises:
        DataError: as `load_model` does; where the tensors do not fit, nothing was filled.
    """
    config: Any = model.config
    headers = _read_headers(folder, _tensor_files(folder))
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
            _fill(by_name[name], tensor, parameters)
        elif not is_inert_tensor(name) and embedding is not None and not _equals_embedding(tensor, embedding):
            # Only a head beside a tied embedding comes here, and after the embedding: `_stream` sees to it.
            raise DataError(
                f"{folder}: config.json ties the embeddings, but {name} differs from the embedding; "
                f"set tie_word_embeddings to false there"
            )


def save_model(
    model: Decoder,
    folder: Path,
    tokenizer_folder: Path | None = None,
    *,
    eod_id: int | None = None,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = 4 * 10**9,
) -> None:
    """Writes config.json, generation_config.json, safetensors and the tokenizer's files into `folder`.

    The vocabulary is unpadded, adapters are merged. Tensors are written shard by shard, so no more than one shard is
    held twice, and then read back and compared bit by bit with the model. Give a temporary folder (`atomic_folder`)
    where a half-written one must not be seen.

    Args:
        eod_id: the token that begins and ends documents; stands as bos and eos in config.json.
        dtype: what to store; None keeps the model's.
        max_shard_bytes: size above which the weights go into several files with an index.

    Raises:
        AuroraError: the disk is full; the family cannot express the model; what was read back is not the model.
    """
    parameters, adapted = dict(model.named_parameters()), adapted_layers(model)
    dtype = dtype or parameters["embed_tokens.weight"].dtype
    config = config_to_hf(model.config, dtype, eod_id)
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("model*.safetensors*"):
        stale.unlink()
    shards = _plan_shards(model, parameters, dtype, max_shard_bytes)
    placed: dict[str, str] = {}
    total_bytes = 0
    for number, shard in enumerate(shards, start=1):
        name = _SINGLE if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        tensors = {tensor_map.name: _export(tensor_map, model, parameters, adapted, dtype) for tensor_map in shard}
        placed |= dict.fromkeys(tensors, name)
        total_bytes += sum(tensor.nbytes for tensor in tensors.values())
        _write_safetensors(tensors, folder / name)
        _compare(tensors, folder / name)
    if len(shards) > 1:
        write_json(folder / _INDEX, {"metadata": {"total_size": total_bytes}, "weight_map": placed})
    write_json(folder / "config.json", config)
    if eod_id is not None:
        generation = {"_from_model_config": True, "bos_token_id": eod_id, "eos_token_id": eod_id}
        write_json(folder / "generation_config.json", generation)
    if tokenizer_folder is not None:
        copy_tokenizer(tokenizer_folder, folder)


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copies a tokenizer's files, and only those.

    Raises:
        DataError: `source` holds no tokenizer.json.
    """
    if not (source / "tokenizer.json").is_file():
        raise DataError(f"{source} holds no tokenizer.json; give the folder of a tokenizer")
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


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
    if (folder / _INDEX).is_file():
        weight_map = _read_json(folder / _INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise DataError(f"{folder / _INDEX} has no weight_map; get the file again")
        names = sorted({str(name) for name in weight_map.values()})
        for name in names:
            if Path(name).name != name:
                raise DataError(f"{folder / _INDEX} names {name!r}, which is not a file of its own folder")
            if not (folder / name).is_file():
                raise DataError(f"{folder / name} is missing, though {_INDEX} names it; get the file again")
        return names
    if (folder / _SINGLE).is_file():
        return [_SINGLE]
    names = sorted(path.name for path in folder.glob("*.safetensors"))
    if names:
        raise DataError(
            f"{folder} holds {', '.join(names[:_LISTED])} but neither {_SINGLE} nor {_INDEX}; add the index"
        )
    pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in folder.glob(pattern))
    if pickles:
        raise DataError(
            f"{folder} holds its weights as pickles only ({', '.join(pickles[:_LISTED])}), which can run code and are "
            f"never loaded; convert them to safetensors first"
        )
    raise DataError(f"{folder} holds no {_SINGLE}; expected a model in the Hugging Face layout")


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
    listed = [f"{len(names)} {problem}: {_some(names)}" for problem, names in problems.items() if names]
    if listed:
        raise DataError(f"{folder}: the weights do not fit config.json. " + ". ".join(listed))


def _some(names: list[str]) -> str:
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


def _fill(tensor_map: TensorMap, tensor: Tensor, parameters: dict[str, torch.nn.Parameter]) -> None:
    """Copies a checkpoint's tensor into those of our parameters that are here; makes no other copy of it."""
    targets = [parameters[part] for part in tensor_map.parts if part in parameters]
    if not targets:  # all the parts of a tensor belong to one layer, so they are here or not together
        return
    for target, part in zip(targets, tensor_map.split(tensor, [len(target) for target in targets]), strict=True):
        if isinstance(target, DTensor):
            shape, offset = compute_local_shape_and_global_offset(target.shape, target.device_mesh, target.placements)
            picked = tuple(slice(start, start + size) for start, size in zip(offset, shape, strict=True))
            target.to_local().copy_(part.flatten(0, 1)[picked])
        else:
            tensor_map.grouped(target).copy_(part)


def _equals_embedding(tensor: Tensor, embedding: Tensor) -> bool:
    """Whether a stored head equals the embedding; compared in pieces, for there may be no room for another copy."""
    if isinstance(embedding, DTensor):
        embedding = embedding.full_tensor()
    embedding = embedding[: len(tensor)]  # padding is stored nowhere
    pairs = zip(tensor.split(_COMPARED_ROWS), embedding.split(_COMPARED_ROWS), strict=True)
    return all(torch.equal(theirs.to(ours.dtype), ours.detach().cpu()) for theirs, ours in pairs)


def _compare(tensors: dict[str, Tensor], path: Path) -> None:
    """Reads a file back.

    Raises:
        AuroraError: it does not hold these tensors, bit by bit; the file is deleted.
    """
    try:
        with safe_open(path, framework="pt") as file:
            differing = [name for name, tensor in tensors.items() if not _same_bits(file.get_tensor(name), tensor)]
    except (SafetensorError, OSError, ValueError) as error:
        differing = [f"all of them ({error})"]
    if differing:
        path.unlink(missing_ok=True)
        raise AuroraError(
            f"{path} was written but reads back otherwise than the model: {_some(differing)}; "
            f"the export is refused, check the disk and memory of this machine and try again"
        )


def _same_bits(one: Tensor, other: Tensor) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    bits = _BITS[one.dtype.itemsize]
    return torch.equal(one.view(bits), other.view(bits))


def _export(
    tensor_map: TensorMap,
    model: Decoder,
    parameters: dict[str, torch.nn.Parameter],
    adapted: dict[str, AdaptedLinear],
    dtype: torch.dtype,
) -> Tensor:
    """One tensor of the checkpoint on the CPU, contiguous, sharing memory with nothing (save_file refuses that)."""
    parts = [
        adapted[part].merged_weight() if part in adapted else parameters[part].detach() for part in tensor_map.parts
    ]
    if tensor_map.parts[0] in ("embed_tokens.weight", "head.weight"):
        parts = [parts[0][: model.config.vocab_size]]
    return tensor_map.join(parts).to(device="cpu", dtype=dtype).contiguous()


def _plan_shards(model: Decoder, parameters: dict, dtype: torch.dtype, max_shard_bytes: int) -> list[list[TensorMap]]:
    shards: list[list[TensorMap]] = [[]]
    filled = 0
    for tensor_map in tensor_maps(model.config):
        size = sum(parameters[part].numel() for part in tensor_map.parts) * dtype.itemsize
        if shards[-1] and filled + size > max_shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(tensor_map)
        filled += size
    return shards


def _write_safetensors(tensors: dict[str, Tensor], path: Path) -> None:
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except (SafetensorError, OSError) as error:
        path.unlink(missing_ok=True)
        raise AuroraError(f"{path} could not be written ({error}); see to the disk's space and permissions") from None
