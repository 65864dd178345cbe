"""Steps that training left out, and the documents it went back to do without."""

import json
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..workspace import read_json

_SHOWN_STEPS, _SHOWN_DOCUMENTS = 20, 50
_MARK = '"kind": "skipped"'


def incidents_section(run: Path) -> dict[str, Any] | None:
    """What the guardian did in training and in safety tuning; None where it had nothing to do."""
    skipped, count = _skipped(run)
    ways_back = [
        _way_back(path.parent.name, entry)
        for stage in ("train", "align")
        for path in sorted((run / stage).glob("*/quarantine.json"))
        for entry in read_json(path)
    ]
    if not count and not ways_back:
        return None
    return {"skipped": skipped, "count": count, "ways_back": ways_back}


def _skipped(run: Path) -> tuple[list[dict[str, Any]], int]:
    """The last steps that were left out, and how many there were."""
    last: deque[dict[str, Any]] = deque(maxlen=_SHOWN_STEPS)
    count = 0
    for stage in ("train", "align"):
        path = run / stage / "metrics.jsonl"
        if not path.exists():
            continue
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                # Few rows are such, and a run may have millions. A half line (of a killed run) is passed over.
                if _MARK in line:
                    with suppress(ValueError):
                        last.append(json.loads(line))
                        count += 1
    return list(last), count


def _way_back(phase: str, entry: dict[str, Any]) -> dict[str, Any]:
    ids = [f"{domain}/{name}" for domain, names in entry["ids"].items() for name in names]
    return {
        "phase": phase,
        "step": entry["step"],
        "reason": entry["reasons"][0],
        "back_to": entry["back_to"],
        "documents": ids[:_SHOWN_DOCUMENTS],
        "more": max(0, len(ids) - _SHOWN_DOCUMENTS),
    }
