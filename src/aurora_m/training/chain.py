"""Which phases stand: each phase's fingerprint includes the one before it, so a change redoes it and what follows."""

import hashlib
import json
from pathlib import Path
from typing import Any

from aurora_m.workspace import Progress, fingerprint, read_json, write_json

from .config import PhaseConfig

Chain = list[tuple[str, str]]  # (phase name, fingerprint), in order

_WHOLE_FILE_BYTES = 64 * 2**20
_SAMPLES, _SAMPLE_BYTES = 64, 256 * 2**10


def chain_fingerprints(start: dict[str, Any], phases: list[PhaseConfig]) -> Chain:
    """The chain: `initial` stands for what training starts from (model, tokens, shared settings), then the phases."""
    chain = [("initial", fingerprint(start))]
    for phase in phases:
        link = {"previous": chain[-1][1], "phase": phase.model_dump(mode="json")}
        chain.append((phase.name, fingerprint(link)))
    return chain


def mark_phase(out: Path, name: str, fingerprint: str) -> None:
    """Writes down whose folder `out/name` is, before anything else goes into it."""
    if _marked(out / name) != fingerprint:
        write_json(out / name / "phase.json", {"phase": name, "fingerprint": fingerprint})


def _marked(folder: Path) -> str | None:
    path = folder / "phase.json"
    return read_json(path).get("fingerprint") if path.exists() else None


def set_aside(out: Path, chain: Chain, progress: Progress) -> None:
    """Moves folders of phases that the recipe no longer describes to `superseded/`, with their rows of metrics."""
    wanted = dict(chain)
    for marker in sorted(out.glob("*/phase.json")):
        folder, name = marker.parent, marker.parent.name
        found = _marked(folder)
        if not found or wanted.get(name) == found:
            continue
        target = unused(out / "superseded" / f"{name}-{found[:8]}")
        target.parent.mkdir(exist_ok=True)
        _copy_metrics(out / "metrics.jsonl", name, folder / "metrics.jsonl")
        folder.rename(target)
        progress.say(
            f"phase {name} has changed: its old checkpoints and model are in {target}, delete them if unwanted"
        )


def unused(path: Path) -> Path:
    """The path, numbered if it is taken."""
    numbers = (path.with_name(f"{path.name}-{number}") for number in range(2, 1_000_000))
    return path if not path.exists() else next(other for other in numbers if not other.exists())


def _copy_metrics(metrics: Path, phase: str, target: Path) -> None:
    if not metrics.exists():
        return
    with metrics.open(encoding="utf-8", errors="replace") as source, target.open("w", encoding="utf-8") as kept:
        for line in source:
            try:
                if json.loads(line).get("phase") == phase:
                    kept.write(line)
            except ValueError:
                continue  # the line a kill cut short


def fingerprint_large(folder: Path, patterns: tuple[str, ...] = ("*",)) -> str:
    """Identity of a folder of large files: names, sizes, and contents, of files over 64 MB at 64 places.

    Reading a terabyte at every resume would cost more than it tells; an edit that keeps every file's size and misses
    64 places of it does not happen by accident.
    """
    paths = sorted({path for pattern in patterns for path in folder.rglob(pattern) if path.is_file()})
    return fingerprint([[path.relative_to(folder).as_posix(), path.stat().st_size, _digest(path)] for path in paths])


def _digest(path: Path) -> str:
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= _WHOLE_FILE_BYTES:
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256()
        for sample in range(_SAMPLES):
            file.seek((size - _SAMPLE_BYTES) * sample // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE_BYTES))
        return digest.hexdigest()
