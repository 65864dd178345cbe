"""The headline of the report, and its sections 7 and 8: what the run cost, and the recipe it followed."""

from typing import Any

import yaml

from aurora_m.release import (
    Change,
    RunFacts,
    duration,
    energy,
    final_changes,
    percent,
    phases_of_model,
    without_secrets,
)
from aurora_m.workspace import format_count

NOT_YET = {"value": "–", "note": "not measured yet"}


def headline(facts: RunFacts) -> dict[str, Any]:
    """The run in one sentence and five figures."""
    return {
        "name": facts.recipe.get("name") or facts.run.name,
        "sentence": _sentence(facts),
        "tiles": [
            {"label": "Trained on", **_tokens_tile(facts)},
            *_change_tiles(final_changes(facts)),
            {"label": "Harmful requests refused", **_safety_tile(facts)},
            {"label": "Total time", **_time_tile(facts)},
        ],
    }


def _sentence(facts: RunFacts) -> str:
    base = without_secrets(facts.recipe.get("base") or {})
    parameters = (facts.train or {}).get("parameters")
    sized = f"{format_count(parameters)}-parameter " if parameters else ""
    family = (base.get("architecture") or {}).get("family") or "language"
    origin = f"continued from {base['path']}" if base.get("path") else "trained from scratch"
    named = [phase["name"] for phase in phases_of_model(facts)]
    steps = f", in the phases {', '.join(named)}" if named else ""
    domains = f" on {', '.join(facts.domains)}" if facts.domains else ""
    tuned = (facts.align or {}).get("examples")
    tuning = f", then tuned for safety on {tuned:,} examples" if tuned else ""
    return f"A {sized}{family} model, {origin}{domains}{steps}{tuning}."


def _tokens_tile(facts: RunFacts) -> dict[str, str]:
    if not facts.train:
        return NOT_YET
    by_phase = " + ".join(f"{p['name']} {format_count(p['tokens'])}" for p in phases_of_model(facts))
    return {"value": f"{format_count(facts.train['tokens'])} tokens", "note": by_phase}


def _change_tiles(changes: list[Change]) -> list[dict[str, str]]:
    """What was learned and what was lost: by group, or, where nobody says what the base knew, by how it went."""
    if any(change.group == "known" for change in changes) or not changes:
        parts = {
            "New languages’ bits per byte": [change for change in changes if change.group == "new language"],
            "Known domains’ bits per byte": [change for change in changes if change.group == "known"],
        }
    else:
        parts = {
            "Learned, bits per byte": [change for change in changes if change.change < 0],
            "Lost, bits per byte": [change for change in changes if change.change >= 0],
        }
    nothing = NOT_YET if not changes else {"value": "–", "note": "no domain"}
    return [{"label": label, **(_change_tile(part) if part else nothing)} for label, part in parts.items()]


def _change_tile(changes: list[Change]) -> dict[str, str]:
    """The mean change over some domains, and each one's own below it."""
    mean = sum(change.change for change in changes) / len(changes)
    each = " · ".join(f"{c.domain} {percent(c.change, signed=True)}" for c in changes)
    return {"value": percent(mean, signed=True), "note": each}


def _safety_tile(facts: RunFacts) -> dict[str, str]:
    safety = (facts.evaluation or {}).get("safety") or {}
    rates = {
        kind: [((safety.get(when) or {}).get(kind) or {}).get("all") for when in ("before", "after")]
        for kind in ("refusal", "over_refusal")
    }
    if not any(rates["refusal"]):
        return NOT_YET
    ways = {
        kind: " → ".join(f"{rate['rate']:.0%}" if rate and rate["rate"] is not None else "–" for rate in both)
        for kind, both in rates.items()
    }
    return {"value": ways["refusal"], "note": f"harmless look-alikes: {ways['over_refusal']}"}


def _time_tile(facts: RunFacts) -> dict[str, str]:
    if not facts.manifests:
        return NOT_YET
    seconds = sum(manifest.seconds for manifest in facts.manifests.values())
    cpu = sum(manifest.cpu_seconds for manifest in facts.manifests.values())
    return {"value": duration(seconds), "note": f"{duration(cpu)} of CPU time over {len(facts.manifests)} stages"}


def costs_section(facts: RunFacts) -> dict[str, Any] | None:
    """Seconds, tokens and memory of each stage, and the machine and versions they were measured on."""
    if not facts.manifests:
        return None
    tokens = _tokens_by_stage(facts)
    longest = max(manifest.seconds for manifest in facts.manifests.values()) or 1
    rows = [
        {
            "stage": stage,
            "seconds": manifest.seconds,
            "share": manifest.seconds / longest,
            "cpu_seconds": manifest.cpu_seconds,
            "tokens": tokens.get(stage),
            "memory": manifest.peak_memory_bytes,
            "finished": manifest.finished,
        }
        for stage, manifest in facts.manifests.items()
    ]
    return {
        "rows": rows,
        "seconds": sum(row["seconds"] for row in rows),
        "cpu_seconds": sum(row["cpu_seconds"] for row in rows),
        "machines": _distinct([manifest.machine for manifest in facts.manifests.values()]),
        "versions": _versions(facts),
        "energy": energy(facts),
    }


def _tokens_by_stage(facts: RunFacts) -> dict[str, int]:
    counted = (facts.tokens or {}).get("domains", {}).values()
    tokens = {
        "tokenize": sum(split["tokens"] for domain in counted for split in domain.values()),
        "train": (facts.train or {}).get("tokens"),
        "align": (facts.align or {}).get("tokens"),
    }
    return {stage: count for stage, count in tokens.items() if count}


def _distinct(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [entry for n, entry in enumerate(entries) if entry not in entries[:n]]


def _versions(facts: RunFacts) -> list[tuple[str, str]]:
    """Every package's version; more than one where the stages ran with different ones."""
    found: dict[str, list[str]] = {}
    for manifest in facts.manifests.values():
        for package, version in manifest.versions.items():
            if version not in found.setdefault(package, []):
                found[package].append(version)
    return [(package, " and ".join(versions)) for package, versions in found.items()]


def recipe_text(facts: RunFacts) -> str | None:
    """The recipe as YAML, without what must not be published."""
    if not facts.recipe:
        return None
    return yaml.safe_dump(without_secrets(facts.recipe), allow_unicode=True, sort_keys=False, width=100)
