"""Section 6 of the report: what the evaluation found, forgetting and safety."""

import json
from pathlib import Path
from typing import Any

from aurora_m.release import RunFacts, domain_groups, plain

from .figures import AFTER, BEFORE, GRID, drawing, new_figure, to_svg

_MAX_ANSWERS = 8
_ANSWER_CHARACTERS = 300
_MAX_LINE_BYTES = 1 << 20
_KINDS = {"refusal": "Refusal of red-team prompts", "over_refusal": "Over-refusal of harmless look-alikes"}


def evaluation_section(facts: RunFacts) -> dict[str, Any] | None:
    """Forgetting of each model, safety before and after tuning with 95% intervals, and a few answers."""
    if not facts.evaluation:
        return None
    groups = domain_groups(facts)
    forgetting = facts.evaluation.get("forgetting") or {}
    models = facts.evaluation.get("models") or {}
    rows = [{"domain": d, "group": groups.get(d, "other"), **row} for d, row in forgetting.items()]
    stderr = {name: models.get(name, {}).get("stderr", {}) for name in ("base", "trained", "aligned")}
    safety = facts.evaluation.get("safety") or {}
    return {
        "forgetting": rows,
        "stderr": stderr,
        "has_aligned": any(row.get("aligned_bpb") is not None for row in rows),
        "safety": safety_table(safety),
        "figure": _safety_figure(safety) if safety else None,
        "answers": example_answers(facts.run / "evaluation" / "answers.jsonl"),
        "review": (facts.align or {}).get("review"),
    }


def safety_table(safety: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows `{label, heading, refusal: {before, after}, over_refusal: {...}}`: all, then concerns, then languages."""
    rows = []
    for key, heading in (("all", None), ("by_concern", "by concern"), ("by_language", "by language")):
        measured = {kind: {when: _group(safety, when, kind, key) for when in ("before", "after")} for kind in _KINDS}
        labels = dict.fromkeys(label for by_when in measured.values() for group in by_when.values() for label in group)
        for number, label in enumerate(labels):
            rates = {kind: {when: g.get(label) for when, g in by_when.items()} for kind, by_when in measured.items()}
            rows.append({"label": label, "heading": heading if number == 0 else None, **rates})
    return rows


def _group(safety: dict[str, Any], when: str, kind: str, key: str) -> dict[str, Any]:
    group = ((safety.get(when) or {}).get(kind) or {}).get(key) or {}
    return ({"all prompts": group} if group else {}) if key == "all" else group


def _safety_figure(safety: dict[str, Any]) -> str:
    rows = safety_table(safety)
    with drawing():
        figure = new_figure(10.8, 0.9 + 0.3 * len(rows))
        panels = figure.subplots(1, 2, sharey=True, gridspec_kw={"wspace": 0.06})
        for axes, (kind, title) in zip(panels, _KINDS.items(), strict=True):
            _draw_rates(axes, rows, kind)
            axes.set_title(title, fontsize=10, loc="left")
        panels[0].set_yticks(range(len(rows)), [row["label"] for row in rows])
        panels[0].invert_yaxis()
        return to_svg(figure, "safety", "Refusal and over-refusal before and after safety tuning")


def _draw_rates(axes, rows: list[dict[str, Any]], kind: str) -> None:
    """One line per row: hollow before, filled after, each with its 95% interval."""
    for place, row in enumerate(rows):
        for when, colour, face, offset in (("before", BEFORE, "none", -0.16), ("after", AFTER, AFTER, 0.16)):
            if (rate := row[kind].get(when)) and rate["rate"] is not None:
                axes.plot([rate["low"], rate["high"]], [place + offset] * 2, color=colour, linewidth=2, alpha=0.55)
                axes.plot(rate["rate"], place + offset, "o", color=colour, markerfacecolor=face, markersize=5.5)
        if row["heading"]:
            axes.axhline(place - 0.5, color=GRID, linewidth=1)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.6, len(rows) - 0.4))
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)


def example_answers(path: Path) -> list[dict[str, Any]]:
    """A few prompts with the answers before and after tuning; prompts and answers are hostile text, not escaped.

    One of each (kind, concern, language) first, in the order of the file.
    """
    if not path.exists():
        return []
    prompts: dict[Any, dict[str, Any]] = {}
    with path.open("rb") as file:
        while line := file.readline(_MAX_LINE_BYTES):
            try:
                row = json.loads(line)
                key = (row["kind"], row["id"])
            except (ValueError, KeyError, TypeError):
                continue
            shown = {name: plain(row.get(name) or "", 80) for name in ("kind", "concern", "lang")}
            shown |= {"instruction": plain(row.get("instruction", ""), _ANSWER_CHARACTERS), "answers": {}}
            answer = {"text": plain(row.get("answer", ""), _ANSWER_CHARACTERS), "verdict": _verdict(row)}
            prompts.setdefault(key, shown)["answers"][plain(row.get("model", ""), 20)] = answer
    seen: set[tuple] = set()
    chosen = []
    for prompt in prompts.values():
        corner = (prompt["kind"], prompt["lang"])
        if corner not in seen:
            seen.add(corner)
            chosen.append(prompt)
    return chosen[:_MAX_ANSWERS]


def _verdict(row: dict[str, Any]) -> str:
    """What the refusal check made of an answer: refused, answered or empty."""
    if row.get("verdict"):
        return plain(row["verdict"], 20)
    return "" if row.get("refused") is None else "refused" if row["refused"] else "answered"
