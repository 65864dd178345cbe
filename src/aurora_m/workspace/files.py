"""Files that are either old or new, never half: atomic writes, atomic folders, fingerprints, the run lock."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from .errors import AuroraError

_TEMPORARY_MARK = ".incomplete"
_REPLACED_MARK = ".replaced"


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; what is written there takes the place of `path` when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}{_TEMPORARY_MARK}")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically, readable, keys in the order given. NaN is refused: no JSON reader agrees on it."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        AuroraError: it is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AuroraError(f"{path} is missing; the stage that writes it has not finished") from None
    except ValueError as error:
        raise AuroraError(f"{path} is not valid JSON ({error}); delete it and run the stage again") from None


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside `path` that takes its place when the block ends well, and vanishes when it does not.

    Killed between the two renames, the old folder is found again by `recover_folder`.
    """
    recover_folder(path)
    temporary = path.with_name(f".{path.name}{_TEMPORARY_MARK}")
    replaced = path.with_name(f".{path.name}{_REPLACED_MARK}")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            path.rename(replaced)
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        if replaced.exists() and not path.exists():
            replaced.rename(path)
        raise
    shutil.rmtree(replaced, ignore_errors=True)


def recover_folder(path: Path) -> None:
    """Clears up after a kill inside `atomic_folder`: the old folder comes back, a half-written one goes."""
    replaced = path.with_name(f".{path.name}{_REPLACED_MARK}")
    if replaced.exists():
        if path.exists():
            shutil.rmtree(replaced)
        else:
            replaced.rename(path)
    shutil.rmtree(path.with_name(f".{path.name}{_TEMPORARY_MARK}"), ignore_errors=True)


def fingerprint(value: Any) -> str:
    """SHA-256 (hex) of a JSON-able value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False, default=str).encode()).hexdigest()


def fingerprint_file(path: Path) -> str:
    """SHA-256 (hex) of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint_folder(folder: Path) -> str:
    """SHA-256 (hex) over the relative names and contents of all files below a folder, hidden ones left out."""
    names = sorted(
        path.relative_to(folder)
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    return fingerprint([[name.as_posix(), fingerprint_file(folder / name)] for name in names])


@contextlib.contextmanager
def lock_run(run: Path) -> Iterator[None]:
    """Holds the run folder for this process; the lock goes with the process, however it ends.

    Raises:
        AuroraError: another process holds it.
    """
    run.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run / ".lock")
    holder = run / ".lock-holder"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        process = holder.read_text() if holder.exists() else "unknown"
        raise AuroraError(
            f"run folder {run} is in use by process {process}; wait for it, stop it, or give this recipe another name"
        ) from None
    try:
        holder.write_text(str(os.getpid()))
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()
