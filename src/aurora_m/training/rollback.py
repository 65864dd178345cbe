"""The way back to a good checkpoint, and the documents that are left out from there on."""

import shutil
from pathlib import Path
from typing import Any

from aurora_m.workspace import AuroraError, DataError, Progress, format_count

from .chain import Chain
from .checkpoint import checkpoint_folder, list_checkpoints, read_record
from .config import PhaseConfig
from .guardian import merged, read_quarantine, write_quarantine
from .state import BatchSource, TrainingState
from .telemetry import MetricsFile


def go_back(state: TrainingState, phase: PhaseConfig, out: Path, progress: Progress) -> None:
    """Loads the last good checkpoint, and quarantines the documents of the bad steps that `state` ended with.

    Where the same checkpoint was gone back to before, the one before it is taken, if there is one.

    Raises:
        AuroraError: there is no checkpoint, or training went back too often in this phase.
    """
    state.writer.wait()
    folder, bad = out / phase.name, state.bad_steps[: state.guardian.config.patience]
    entries, saved_here, good = state.ranks.from_main(_found(state, folder, out))
    _refuse(state, phase, entries, good)
    places = [f"{saved.parent.parent.name}/{saved.name}" for saved in good]
    been = sum(entry["back_to"] == places[0] for entry in entries)
    chosen = min(been, len(good) - 1)

    documents = merged(one["documents"] for one in bad)
    entry = {
        "step": bad[0]["step"],
        "reasons": [one["reason"] for one in bad],
        "back_to": places[chosen],
        "documents": documents,
        "ids": state.batches.names_of(documents),
    }
    # First, so that a kill in between only means that these steps are found bad once more.
    if state.ranks.is_main:
        for saved in saved_here[saved_here.index(good[chosen]) + 1 if good[chosen] in saved_here else 0 :]:
            shutil.rmtree(saved)
        write_quarantine(folder, [*entries, entry])
    lost = state.step
    state.load(good[chosen])
    state.batches.quarantine(documents)
    metrics = MetricsFile(out / "metrics.jsonl", writes=state.ranks.is_main)
    # Not at the position of then: where a phase branches off, rows of others lie behind it.
    metrics.cut_phases({phase.name: state.step if state.phase == phase.name else -1})
    metrics.write(
        {"kind": "went back", "phase": phase.name, **{key: entry[key] for key in ("step", "reasons", "back_to")}}
    )
    state.metrics_position = metrics.position
    count = sum(map(len, documents.values()))
    progress.say(
        f"warning: {len(bad)} bad steps in a row up to step {bad[-1]['step']} ({bad[-1]['reason']}): back from step "
        f"{lost} to {places[chosen]}, without {count} documents that {folder / 'quarantine.json'} lists"
    )


def _found(state: TrainingState, folder: Path, out: Path) -> tuple[list[dict[str, Any]], list[Path], list[Path]]:
    """The phase's quarantine, its checkpoints, and those to go back to, newest first."""
    before = [checkpoint_folder(out / state.began_at[0], state.began_at[1])] if state.began_at else []
    saved_here = list_checkpoints(folder)
    return read_quarantine(folder), saved_here, [one for one in [*reversed(saved_here), *before] if _is_good(one)]


def leave_out_quarantined(batches: BatchSource, out: Path, chain: Chain) -> None:
    """What earlier calls quarantined in the phases of this chain."""
    for name, _ in chain:
        for entry in read_quarantine(out / name):
            batches.quarantine(entry["documents"])


def _is_good(folder: Path) -> bool:
    try:
        return not read_record(folder)["bad_steps"]
    except (DataError, KeyError):
        return False


def _refuse(state: TrainingState, phase: PhaseConfig, entries: list[dict[str, Any]], good: list[Path]) -> None:
    last = state.bad_steps[-1]
    if good and len(entries) < state.guardian.config.rollbacks:
        return
    where = f"phase {phase.name}, step {last['step']} ({format_count(state.tokens)} tokens): {last['reason']}"
    why = (
        f"training went back {len(entries)} times in this phase already (train.guardian.rollbacks)"
        if good
        else "there is no checkpoint to go back to yet"
    )
    raise AuroraError(
        f"{where}, {len(state.bad_steps)} bad steps in a row, and {why}; domains in the batch: "
        f"{', '.join(last['documents'])}; last good checkpoint: {good[0] if good else 'none yet'}; lower lr.peak, "
        "lengthen lr.warmup or use precision: float32"
    )
