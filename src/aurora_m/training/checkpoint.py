"""Checkpoints: a DCP folder of tensors beside a `state.json`, written whole or not at all, refused when damaged.

checkpoints/step-00000123/.metadata, *.distcp   tensors, by torch.distributed.checkpoint (any later world size)
checkpoints/step-00000123/state.json            everything else: place, data cursors, ledger; and the files' hashes
"""

import pickle
import shutil
import warnings
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex, StorageMeta
from torch.distributed.checkpoint.state_dict_loader import load as load_tensors
from torch.distributed.checkpoint.state_dict_saver import save as save_tensors

from aurora_m.workspace import (
    AuroraError,
    DataError,
    atomic_folder,
    fingerprint_file,
    format_count,
    read_json,
    write_json,
)

from .gradients import local_tensor
from .ranks import SINGLE, Ranks

# Once, and not around each call: filters are the whole process's, and checkpoints are written beside the loop.
warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")

_RECORD = "state.json"
_FORMAT = 2
_METADATA = "torch.distributed.checkpoint.metadata"
# All that a table of contents without objects needs. `BytesStorageMetadata` stays out: DCP would unpickle those items.
_ALLOWED = {
    (_METADATA, "Metadata"),
    (_METADATA, "TensorStorageMetadata"),
    (_METADATA, "TensorProperties"),
    (_METADATA, "ChunkStorageMetadata"),
    (_METADATA, "MetadataIndex"),
    (_METADATA, "StorageMeta"),
    (_METADATA, "_MEM_FORMAT_ENCODING"),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch", "Size"),
    ("torch", "float32"),
    ("torch", "bfloat16"),
    ("torch", "int64"),
    ("torch", "uint8"),
    ("torch.serialization", "_get_layout"),
    ("pathlib", "PosixPath"),
    ("pathlib", "WindowsPath"),
    ("pathlib._local", "PosixPath"),
    ("pathlib._local", "WindowsPath"),
}


class _MetadataUnpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> Any:
        if (module_name, global_name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"{module_name}.{global_name} has no place in a checkpoint")
        return super().find_class(module_name, global_name)


class _SafeReader(FileSystemReader):
    """DCP keeps its table of contents as a pickle; this reads it without letting it run anything."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        with (Path(self.path) / ".metadata").open("rb") as file:
            metadata = _MetadataUnpickler(file).load()
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


class _CopyPlanner(DefaultSavePlanner):
    """Takes names, shapes and layout from the live tensors and what is written from copies of this rank's shards."""

    def __init__(self, copies: dict[str, Tensor]) -> None:
        super().__init__()
        self._copies = copies

    def lookup_object(self, index: MetadataIndex) -> Tensor:
        return self._copies[index.fqn]


def save_checkpoint(
    folder: Path,
    tensors: dict[str, Tensor],
    record: dict[str, Any],
    ranks: Ranks = SINGLE,
    copies: dict[str, Tensor] | None = None,
) -> None:
    """Writes tensors and record into `folder`, which appears complete or not at all.

    All ranks call it together, each with its own shards (DTensors) or replicas; the main one's record counts. With
    `copies`, this rank's part of each tensor on the CPU, only the layout of `tensors` is read: they may change.

    Raises:
        AuroraError: the disk is too full, or writing failed, on any rank.
    """
    own_bytes = sum(local_tensor(tensor).nbytes for tensor in tensors.values())
    size = sum(ranks.gather(own_bytes))
    with ExitStack() as stack, ranks.agreed():
        temporary: Any = None
        with ranks.agreed():
            if ranks.is_main:
                _check_room(folder, size)
                temporary = stack.enter_context(atomic_folder(folder))
        try:
            _write_tensors(ranks.from_main(temporary), tensors, record, ranks, copies)
        except (OSError, RuntimeError, CheckpointException) as error:
            _raise_interrupt_within(error)
            raise AuroraError(f"checkpoint {folder} could not be written: {_reason(error)}") from None


def _check_room(folder: Path, size: int) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder.parent).free
    if free < size * 1.05 + 1_000_000:
        raise AuroraError(
            f"no room for checkpoint {folder}: it takes {format_count(size)}B and {format_count(free)}B are free; "
            "make room and run again to go on from the checkpoint before it"
        )


def _write_tensors(
    temporary: Path, tensors: dict[str, Tensor], record: dict[str, Any], ranks: Ranks, copies: dict[str, Tensor] | None
) -> None:
    save_tensors(
        dict(tensors),
        storage_writer=FileSystemWriter(temporary, overwrite=True),
        planner=None if copies is None else _CopyPlanner(copies),
        process_group=ranks.group,
        no_dist=ranks.alone,
    )
    own: dict[str, str] = {}
    with ranks.agreed():
        # Each rank reads its own files, which its machine still has in memory.
        paths = sorted(temporary.glob(f"__{ranks.rank}_*")) + ([temporary / ".metadata"] if ranks.is_main else [])
        try:
            own = {path.name: fingerprint_file(path) for path in paths}
        except OSError as error:
            raise AuroraError(f"checkpoint {temporary} could not be read again: {error}") from None
    files = {name: digest for part in ranks.gather(own) for name, digest in part.items()}
    if ranks.is_main:
        write_json(temporary / _RECORD, {"format": _FORMAT, "files": dict(sorted(files.items())), **record})


def load_checkpoint(folder: Path, tensors: dict[str, Tensor], ranks: Ranks = SINGLE) -> dict[str, Any]:
    """Loads a checkpoint into the live `tensors`, in place, and returns its record.

    It may have been written by any number of ranks: each takes what its shards need.

    Raises:
        DataError: it is incomplete or damaged; `tensors` are untouched.
        AuroraError: it is whole but holds other tensors.
    """
    with ranks.agreed():
        record = read_record(folder)
        for name, expected in list(record["files"].items())[ranks.rank :: ranks.count]:
            path = folder / name
            if not path.is_file() or fingerprint_file(path) != expected:
                raise DataError(f"checkpoint {folder} is damaged: {name} is missing or not what was written")
    with ranks.agreed():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                load_tensors(dict(tensors), storage_reader=_SafeReader(folder), no_dist=True)
        except (Exception, CheckpointException) as error:
            _raise_interrupt_within(error)
            raise AuroraError(f"checkpoint {folder} does not fit this model: {_reason(error)}") from None
    return record


def read_record(folder: Path) -> dict[str, Any]:
    """The record of a checkpoint, without its tensors.

    Raises:
        DataError: it is missing or damaged.
    """
    try:
        record = read_json(folder / _RECORD)
    except (AuroraError, OSError) as error:
        raise DataError(f"checkpoint {folder} is damaged: {error}") from None
    if not isinstance(record, dict) or record.get("format") != _FORMAT or not isinstance(record.get("files"), dict):
        raise DataError(f"checkpoint {folder} is not of format {_FORMAT}")
    return record


def checkpoint_folder(phase_folder: Path, step: int) -> Path:
    return phase_folder / "checkpoints" / f"step-{step:08}"


def list_checkpoints(phase_folder: Path) -> list[Path]:
    """The checkpoints of a phase, oldest first; half-written ones have hidden names and are not seen."""
    return sorted((phase_folder / "checkpoints").glob("step-*"))


def prune_checkpoints(
    phase_folder: Path, keep: int, keep_every: int | None = None, branches: Sequence[int] = ()
) -> None:
    """Deletes all but the newest `keep`, and the first one at or after each multiple of `keep_every` tokens of the run,
    and at or after each of `branches`.

    The phase's last is its newest, so it always stays.
    """
    folders = list_checkpoints(phase_folder)
    lasting = _first_of_each_span(folders, keep_every) if keep_every else set()
    lasting |= {folder for tokens in branches if (folder := first_at_or_after(folders, tokens)) is not None}
    for folder in folders[:-keep]:
        if folder not in lasting:
            shutil.rmtree(folder, ignore_errors=True)
    for leftover in (phase_folder / "checkpoints").glob(".step-*"):  # of a process killed while writing
        shutil.rmtree(leftover, ignore_errors=True)


def _first_of_each_span(folders: list[Path], tokens_per_span: int) -> set[Path]:
    """The oldest checkpoint of each span of tokens that began within the phase; damaged ones count for nothing."""
    first: dict[int, Path] = {}
    start = 0
    for folder in folders:
        with suppress(DataError):
            record = read_record(folder)
            start = record["tokens"] - sum(record["phase_tokens_by_domain"].values())
            first.setdefault(record["tokens"] // tokens_per_span, folder)
    return {folder for span, folder in first.items() if span > start // tokens_per_span}


def first_at_or_after(folders: Iterable[Path], tokens: int) -> Path | None:
    """The oldest of these checkpoints that has seen so many tokens of the run; damaged ones count for nothing."""
    for folder in folders:
        with suppress(DataError):
            if read_record(folder)["tokens"] >= tokens:
                return folder
    return None


def random_tensors() -> dict[str, Tensor]:
    """The states of torch's random generators, as tensors for a checkpoint."""
    states = {"random.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["random.cuda"] = torch.cuda.get_rng_state()
    return states


def restore_random(states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["random.cpu"])
    if "random.cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["random.cuda"])


def _causes(error: BaseException) -> list[BaseException]:
    """The errors of all ranks where DCP gathered them, otherwise the error itself."""
    if isinstance(error, CheckpointException):
        return [failure[0] for failure in error.failures.values()]
    return [error]


def _raise_interrupt_within(error: BaseException) -> None:
    # DCP gathers a KeyboardInterrupt like any failure; a second Ctrl-C must still end the process.
    if any(isinstance(cause, KeyboardInterrupt) for cause in _causes(error)):
        raise KeyboardInterrupt from None


def _reason(error: BaseException) -> str:
    cause = _causes(error)[0]
    return str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
