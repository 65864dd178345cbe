"""Models out, into folders in the Hugging Face layout: safetensors written tensor by tensor, and read back."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..workspace import AuroraError, DataError, write_json
from .config import ModelConfig
from .decoder import Decoder
from .families import TensorMap, tensor_maps
from .hf_config import config_to_hf
from .lora import adapted_layers
from .weights import INDEX_FILE, WEIGHTS_FILE, listed

_DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float64: "F64"}
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

    Adapters are merged; everything else is as in `write_model`.

    Args:
        dtype: what to store; None keeps the model's.
    """
    parameters, adapted = dict(model.named_parameters()), adapted_layers(model)
    tensors = (
        adapted[name].merged_weight() if name in adapted else parameters[name].detach()
        for name in exported_parameters(model.config)
    )
    write_model(
        model.config,
        tensors,
        folder,
        tokenizer_folder,
        eod_id=eod_id,
        dtype=dtype or parameters["embed_tokens.weight"].dtype,
        max_shard_bytes=max_shard_bytes,
    )


def exported_parameters(config: ModelConfig) -> list[str]:
    """The names of a model's parameters in the order in which `write_model` takes them."""
    return [part for tensor_map in tensor_maps(config) for part in tensor_map.parts]


def write_model(
    config: ModelConfig,
    tensors: Iterable[Tensor],
    folder: Path,
    tokenizer_folder: Path | None = None,
    *,
    eod_id: int | None = None,
    dtype: torch.dtype = torch.float32,
    max_shard_bytes: int = 4 * 10**9,
) -> None:
    """Writes a model whose tensors come one after the other, in the order of `exported_parameters`.

    The vocabulary is unpadded. Each tensor is written as it comes, so no more than the parts of one are held; each file
    is then read back and compared with what was to be written. Give a temporary folder (`atomic_folder`) where a
    half-written one must not be seen.

    Args:
        eod_id: the token that begins and ends documents; stands as bos and eos in config.json.
        dtype: what to store.
        max_shard_bytes: size above which the weights go into several files with an index.

    Raises:
        AuroraError: the disk is full; the family cannot express the model; what was read back is not the model.
    """
    hf_config = config_to_hf(config, dtype, eod_id)
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("model*.safetensors*"):
        stale.unlink()
    shards = _plan_shards(config, dtype, max_shard_bytes)
    stored = _stored_tensors(config, iter(tensors), dtype)
    placed: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = WEIGHTS_FILE if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        _write_shard(folder / name, shard, stored)
        placed |= dict.fromkeys((entry.name for entry in shard), name)
    if len(shards) > 1:
        total_bytes = sum(entry.nbytes for shard in shards for entry in shard)
        write_json(folder / INDEX_FILE, {"metadata": {"total_size": total_bytes}, "weight_map": placed})
    write_json(folder / "config.json", hf_config)
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


@dataclass(frozen=True)
class _Entry:
    """A tensor of a file that is still to be written."""

    name: str
    shape: list[int]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


def _plan_shards(config: ModelConfig, dtype: torch.dtype, max_shard_bytes: int) -> list[list[_Entry]]:
    with torch.device("meta"):
        shapes = {name: list(parameter.shape) for name, parameter in Decoder(config).named_parameters()}
    shards: list[list[_Entry]] = [[]]
    for tensor_map in tensor_maps(config):
        rows = sum(_stored_rows(config, part, shapes[part][0]) for part in tensor_map.parts)
        entry = _Entry(tensor_map.name, [rows, *shapes[tensor_map.parts[0]][1:]], dtype)
        if shards[-1] and sum(one.nbytes for one in shards[-1]) + entry.nbytes > max_shard_bytes:
            shards.append([])
        shards[-1].append(entry)
    return shards


def _stored_rows(config: ModelConfig, name: str, rows: int) -> int:
    return config.vocab_size if name in ("embed_tokens.weight", "head.weight") else rows


def _stored_tensors(config: ModelConfig, tensors: Iterator[Tensor], dtype: torch.dtype) -> Iterator[Tensor]:
    """The checkpoint's tensors from ours, on the CPU, contiguous."""

    def unpadded(name: str, tensor: Tensor) -> Tensor:
        return tensor[: _stored_rows(config, name, len(tensor))]

    def take(tensor_map: TensorMap) -> Tensor:  # a function of its own, which keeps nothing of what it returns
        joined = tensor_map.join([unpadded(name, next(tensors)) for name in tensor_map.parts])
        return joined.to(device="cpu", dtype=dtype).contiguous()

    for tensor_map in tensor_maps(config):
        yield take(tensor_map)


def _write_shard(path: Path, entries: list[_Entry], tensors: Iterator[Tensor]) -> None:
    """Writes the next tensors into a file and reads it back.

    Raises:
        AuroraError: the file cannot be written, or does not hold these tensors bit by bit; it is deleted then.
    """
    digests: dict[str, bytes] = {}
    try:
        with path.open("wb") as file:
            file.write(_header(entries))
            for entry in entries:
                data = _bytes_of(next(tensors))
                digests[entry.name] = hashlib.sha256(data).digest()
                file.write(data)
                del data  # the next one need not lie beside it
    except OSError as error:
        path.unlink(missing_ok=True)
        raise AuroraError(f"{path} could not be written ({error}); see to the disk's space and permissions") from None
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    _compare(path, entries, digests)


def _header(entries: list[_Entry]) -> bytes:
    """What a safetensors file begins with: the length of a JSON table, and the table."""
    table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    ends = list(accumulate(entry.nbytes for entry in entries))
    for entry, end in zip(entries, ends, strict=True):
        offsets = [end - entry.nbytes, end]
        table[entry.name] = {"dtype": _DTYPES[entry.dtype], "shape": entry.shape, "data_offsets": offsets}
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that tensors are aligned
    return len(text).to_bytes(8, "little") + text


def _bytes_of(tensor: Tensor) -> memoryview:
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _compare(path: Path, entries: list[_Entry], digests: dict[str, bytes]) -> None:
    differing = []
    try:
        for entry in entries:
            # Opened anew for each: a file's pages count as this process's memory for as long as it is mapped.
            with safe_open(path, framework="pt") as file:
                tensor = file.get_tensor(entry.name)
            same = (list(tensor.shape), tensor.dtype) == (entry.shape, entry.dtype)
            if not same or hashlib.sha256(_bytes_of(tensor)).digest() != digests[entry.name]:
                differing.append(entry.name)
    except (SafetensorError, OSError, ValueError) as error:
        differing = [f"all of them ({error})"]
    if differing:
        path.unlink(missing_ok=True)
        raise AuroraError(
            f"{path} was written but reads back otherwise than the model: {listed(differing)}; "
            f"the export is refused, check the disk and memory of this machine and try again"
        )
