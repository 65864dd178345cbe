"""Which phases stand: each phase's fingerprint includes that of the one it begins after, so a change redoes both.

A phase's folder says whose it is (`phase.json`): what it is trained by, and the fingerprints it had before its recipe
was edited under way.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aurora_m.workspace import Progress, fingerprint, read_json, write_json

from .lineage import parents
from .phase_config import PhaseConfig

Chain = list[tuple[str, str]]  # (phase name, fingerprint), in order

_WHOLE_FILE_BYTES = 64 * 2**20
_SAMPLES, _SAMPLE_BYTES = 64, 256 * 2**10


def chain_fingerprints(start: dict[str, Any], phases: list[PhaseConfig]) -> Chain:
    """The chain: `initial` stands for what training starts from (model, shared settings), then the phases."""
    links = {"initial": fingerprint(start)}
    for phase, parent in zip(phases, parents(phases), strict=True):
        link = {"previous": links[parent or "initial"], "phase": phase.model_dump(mode="json")}
        links[phase.name] = fingerprint(link)
    return list(links.items())


def mark_phase(out: Path, name: str, fingerprint: str, **more: Any) -> None:
    """Writes down whose folder `out/name` is, before anything else goes into it, and what else is to be known of it."""
    known = read_mark(out, name)
    marked = (known if known.get("fingerprint") == fingerprint else {}) | {"phase": name, "fingerprint": fingerprint}
    if known != marked | more:
        write_json(out / name / "phase.json", marked | more)


def read_mark(out: Path, name: str) -> dict[str, Any]:
    """What `mark_phase` wrote; nothing where the phase has no folder."""
    path = out / name / "phase.json"
    return read_json(path) if path.exists() else {}


def fingerprints_of(out: Path, name: str, fingerprint: str) -> set[str]:
    """Those that checkpoints of the phase may have: its own, and those before it was edited under way."""
    mark = read_mark(out, name)
    return {fingerprint, *(mark.get("earlier", []) if mark.get("fingerprint") == fingerprint else [])}


def set_aside(out: Path, chain: Chain, progress: Progress, reasons: Mapping[str, str] | None = None) -> None:
    """Moves folders of phases that the recipe no longer describes to `superseded/`, with their rows of metrics.

    `reasons`: why, of those phases that are to go.
    """
    wanted, reasons = dict(chain), reasons or {}
    for marker in sorted(out.glob("*/phase.json")):
        folder, name = marker.parent, marker.parent.name
        found = read_mark(out, name).get("fingerprint")
        if not found or (wanted.get(name) == found and name not in reasons):
            continue
        target = unused(out / "superseded" / f"{name}-{found[:8]}")
        target.parent.mkdir(exist_ok=True)
        _copy_metrics(out / "metrics.jsonl", name, folder / "metrics.jsonl")
        folder.rename(target)
        why = f" ({reasons[name]})" if name in reasons else ""
        progress.say(
            f"phase {name} has changed{why}: its old checkpoints and model are in {target}, delete them if unwanted"
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
