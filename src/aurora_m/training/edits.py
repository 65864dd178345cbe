"""What a changed recipe does to a run: which phases stand, which goes on under way, which are trained again, and why.

A phase that is not finished goes on where its mixture was edited, or its length, as long as every learning rate it has
had would be the same; documents may have come or gone in any phase. All else redoes a phase, and those that begin after
it. Documents alone redo only what is finished, and only where the run has nothing left to train.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from aurora_m.workspace import DataError, Progress, format_count

from .chain import chain_fingerprints, fingerprints_of, mark_phase, read_mark, set_aside
from .checkpoint import list_checkpoints, read_record
from .config import PhaseConfig, TrainConfig
from .lineage import parents
from .schedule import build_segments

_EDITABLE = ("mixture", "tokens", "lr")  # of lr all that counts is in the segment


@dataclass(frozen=True)
class Edit:
    """What becomes of a phase. `words` is for people, empty where there is nothing to say."""

    phase: str
    fate: Literal["new", "finished", "goes on", "redone"]
    words: str = ""


def newest_record(out: Path, name: str, link: str) -> dict[str, Any] | None:
    """The record of a phase's newest checkpoint that can be read and belongs to it."""
    accepted = fingerprints_of(out, name, link)
    for folder in reversed(list_checkpoints(out / name)):
        try:
            record = read_record(folder)
        except DataError:
            continue
        if record.get("fingerprint") in accepted:
            return record
    return None


def is_finished(record: dict[str, Any] | None, name: str) -> bool:
    """Whether a checkpoint is the end of its phase."""
    return record is not None and name in [row["name"] for row in record["finished"]]


def foresee_edits(
    config: TrainConfig, start: dict[str, Any], out: Path, data: Mapping[str, str] | None = None
) -> list[Edit]:
    """What running would do with each phase, in their order.

    `start` is what every phase's result depends on, `data` the fingerprints of the domains' documents (None: not
    compared).
    """
    chain = chain_fingerprints(start, config.phases)
    settings = fixed_settings(config, start)
    edits: dict[str, Edit] = {}
    for phase, parent, (name, link) in zip(config.phases, parents(config.phases), chain[1:], strict=True):
        if parent and edits[parent].fate == "redone":
            has_folder = bool(read_mark(out, name))
            edits[name] = Edit(name, "redone" if has_folder else "new", f"follows {parent}" if has_folder else "")
        else:
            edits[name] = _edit(out, phase, link, settings[name])
    if data is not None and all(edit.fate == "finished" for edit in edits.values()):
        edits |= _changed_data(config, out, edits, data)
    return list(edits.values())


def describe_edits(edits: list[Edit]) -> list[str]:
    """What there is to say of them before anything runs."""
    return [
        f"phase {edit.phase} is trained again ({edit.words})" if edit.fate == "redone" else edit.words
        for edit in edits
        if edit.words
    ]


def settle_edits(
    config: TrainConfig, start: dict[str, Any], out: Path, data: Mapping[str, str], progress: Progress
) -> list[Edit]:
    """Does to the folders what `foresee_edits` foresees: moves aside what is to be trained again, marks the rest."""
    chain = chain_fingerprints(start, config.phases)
    edits = foresee_edits(config, start, out, data)
    links, settings = dict(chain), fixed_settings(config, start)
    for phase in config.phases:
        edit = next(edit for edit in edits if edit.phase == phase.name)
        mark = read_mark(out, phase.name)
        if not mark or edit.fate in ("new", "redone"):
            continue
        earlier = mark.get("earlier", [])
        if mark["fingerprint"] != links[phase.name]:
            earlier = [*earlier, mark["fingerprint"]]
        own = {domain: data[domain] for domain in phase.mixture if domain in data}
        more = {"earlier": earlier, "data": own, "settings": settings[phase.name], "planned": _planned(phase)}
        mark_phase(out, phase.name, links[phase.name], **more)
        if edit.fate == "goes on" and edit.words:
            progress.say(edit.words)
    set_aside(out, chain, progress, {edit.phase: edit.words for edit in edits if edit.fate == "redone"})
    return edits


def begin_mark(
    config: TrainConfig, start: dict[str, Any], out: Path, phase: PhaseConfig, data: Mapping[str, str]
) -> None:
    """Marks the folder of a phase that begins."""
    link = dict(chain_fingerprints(start, config.phases))[phase.name]
    own = {domain: data[domain] for domain in phase.mixture if domain in data}
    settings = fixed_settings(config, start)[phase.name]
    mark_phase(out, phase.name, link, data=own, settings=settings, planned=_planned(phase))


def fixed_settings(config: TrainConfig, start: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By phase, what cannot change without training it again: what it begins with, and how it is trained."""
    found = {}
    links = dict(chain_fingerprints(start, config.phases))
    segments = build_segments(config.phases, start.get("base_rate"))
    for phase, parent, segment in zip(config.phases, parents(config.phases), segments, strict=True):
        rates = asdict(segment)
        if segment.decay == "constant":
            rates.pop("span")
        own = {key: value for key, value in phase.model_dump(mode="json").items() if key not in _EDITABLE}
        begins = {"start": start} | ({"the phase before": links[parent]} if parent else {})
        found[phase.name] = begins | own | {"lr": rates}
    return found


def _planned(phase: PhaseConfig) -> dict[str, Any]:
    """What may change under way."""
    return phase.model_dump(mode="json", include={"mixture", "tokens"})


def _edit(out: Path, phase: PhaseConfig, link: str, settings: dict[str, Any]) -> Edit:
    """What becomes of a phase whose parent stands."""
    name, mark = phase.name, read_mark(out, phase.name)
    if not mark:
        return Edit(name, "new")
    record = newest_record(out, name, mark["fingerprint"])
    finished = is_finished(record, name)
    if mark["fingerprint"] == link:
        return Edit(name, "finished" if finished else "goes on")
    changed = list(_differences(mark.get("settings", {}), settings))
    if changed or "settings" not in mark:
        return Edit(name, "redone", ", ".join(changed[:4]) + (", ..." if len(changed) > 4 else ""))
    edited = _edited(mark["planned"], _planned(phase))
    if finished:
        return Edit(name, "redone", f"{edited}; an edit under way would go on, but it is finished")
    if record is None:
        return Edit(name, "goes on")
    if record["phase_step"] >= phase.steps:
        return Edit(name, "redone", f"{edited}; {record['phase_step']} of its steps are done, it has {phase.steps} now")
    return Edit(name, "goes on", f"phase {name} goes on at {format_count(record['tokens'])} tokens with {edited}")


def _changed_data(
    config: TrainConfig, out: Path, edits: Mapping[str, Edit], data: Mapping[str, str]
) -> dict[str, Edit]:
    """The phases of a finished run to train again, for documents that have changed since."""
    changed: dict[str, Edit] = {}
    for phase, parent in zip(config.phases, parents(config.phases), strict=True):
        known = read_mark(out, phase.name).get("data", {})
        domains = [domain for domain, shards in known.items() if data.get(domain) != shards]
        if parent in changed:
            changed[phase.name] = Edit(phase.name, "redone", f"follows {parent}")
        elif domains:
            changed[phase.name] = Edit(phase.name, "redone", f"other documents of {', '.join(domains)}")
    return changed


def _edited(before: dict[str, Any], after: dict[str, Any]) -> str:
    """`a new mixture: fi 0.2 -> 0.25, vi 0.1 -> none, and 2M tokens instead of 1M`."""
    words = []
    if before["mixture"] != after["mixture"]:
        words.append(f"a new mixture: {', '.join(_differences(before['mixture'], after['mixture']))}")
    if before["tokens"] != after["tokens"]:
        words.append(f"{format_count(after['tokens'])} tokens instead of {format_count(before['tokens'])}")
    return " and ".join(words)


def _differences(before: Any, after: Any, key: str = "") -> Iterator[str]:
    """`lr.peak 0.002 -> 0.001` for every value that is not the same."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in dict.fromkeys([*before, *after]):
            yield from _differences(before.get(name), after.get(name), f"{key}.{name}" if key else name)
    elif before != after:
        shown = [_shown(value) for value in (before, after)]
        yield f"{key} {shown[0]} -> {shown[1]}"


def _shown(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) < 40 else f"{text[:8]}..."  # a fingerprint, most of all
