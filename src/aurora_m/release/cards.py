"""The model card and the data card: Markdown from the run's own figures, with foreign text made harmless."""

import re
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from aurora_m.workspace import format_count

from .config import ReleaseConfig
from .facts import RunFacts, domain_groups, energy, final_changes, phases_of_model
from .licenses import licenses_of, obligations
from .wording import duration, percent, plain, size

# Above this a reader of the model card is not helped by one more row; the data card has them all.
_SOURCES_ON_MODEL_CARD = 30
_SMALL_MODEL = 500_000_000
_MANY_EPOCHS = 4
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def model_card(config: ReleaseConfig, facts: RunFacts, recipe: dict[str, Any], summary: dict[str, Any]) -> str:
    """README.md of the release: what the model is, what it was made of, what it can and cannot do, in figures."""
    sources = data_sources(facts)
    return _render(
        "model_card.md.j2",
        front_matter=front_matter(config, facts, recipe, summary),
        summary=summary,
        description=recipe.get("description") or "",
        base=_base(recipe),
        phases=_phase_rows(facts, recipe),
        domains=facts.domains,
        data=data_rows(facts),
        sources=sources[:_SOURCES_ON_MODEL_CARD],
        more_sources=max(0, len(sources) - _SOURCES_ON_MODEL_CARD),
        restricted=restricted_sources(sources),
        ledger=_ledger_rows(facts),
        merge=facts.merge,
        safety=_safety_rows(facts),
        review=(facts.align or {}).get("review") or {},
        limits=_limits(facts, summary),
        made=_made(facts),
        energy=energy(facts),
        tuning=facts.align or {},
        seed=recipe.get("seed"),
        has_data_card=config.include_data_card,
    )


def data_card(facts: RunFacts, summary: dict[str, Any]) -> str:
    """DATA_CARD.md: where every document came from, what was dropped and why, what was taken out of the text."""
    sources = data_sources(facts)
    domains = (facts.curation or {}).get("domains", {})
    return _render(
        "data_card.md.j2",
        summary=summary,
        data=data_rows(facts),
        sources=sources,
        restricted=restricted_sources(sources),
        passes={name: domain.get("passes", []) for name, domain in domains.items()},
        redactions={name: domain.get("redactions", {}) for name, domain in domains.items()},
        rejected={name: domain.get("rejected_records", {}) for name, domain in domains.items()},
        configs=facts.recipe.get("domains") or {},
        tokenizer=(facts.tokens or {}).get("tokenizer"),
    )


def front_matter(config: ReleaseConfig, facts: RunFacts, recipe: dict[str, Any], summary: dict[str, Any]) -> str:
    """The YAML head of a model card, as the Hugging Face hub reads it."""
    tags = ["aurora-m", "continual-pretraining", *(["multilingual"] if len(summary["languages"]) > 1 else [])]
    if any(entry.get("rules") == "code" for entry in (recipe.get("domains") or {}).values()):
        tags.append("code")
    head: dict[str, Any] = {
        "language": summary["languages"],
        "license": config.license,
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": tags + (["conversational"] if summary["model"]["instruction_tuned"] else []),
    }
    base = (recipe.get("base") or {}).get("path") or ""
    if _HUB_ID.fullmatch(base) and not Path(base).exists():
        head["base_model"] = base
    return yaml.safe_dump(head, sort_keys=False, allow_unicode=True).strip()


def data_sources(facts: RunFacts) -> list[dict[str, Any]]:
    """Every source with what was kept of it and what its licences ask, largest first."""
    rows = [
        {
            "domain": domain,
            "name": name,
            "documents": source["documents_kept"],
            "bytes": source["bytes_kept"],
            "documents_in": source["documents_in"],
            "licenses": licenses_of({name: source}),
        }
        for domain, entry in (facts.curation or {}).get("domains", {}).items()
        for name, source in entry.get("sources", {}).items()
    ]
    return sorted(rows, key=lambda row: -row["bytes"])


def restricted_sources(sources: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Licences that ask something of the model's users, most documents first, and the sources under each.

    Rows `{license, asks: [non-commercial, ...], documents, sources: {name: {domain: documents}}}`.
    """
    found: dict[str, dict[str, Any]] = {}
    for source in sources:
        for license, documents in source["licenses"].items():
            if asks := obligations(license):
                row = found.setdefault(license, {"license": license, "asks": asks, "documents": 0, "sources": {}})
                row["documents"] += documents
                by_domain = row["sources"].setdefault(source["name"], {})
                by_domain[source["domain"]] = by_domain.get(source["domain"], 0) + documents
    return sorted(found.values(), key=lambda row: -row["documents"])


def data_rows(facts: RunFacts) -> list[dict[str, Any]]:
    """Documents, bytes and tokens of each domain, trained on and held out; None where not counted yet."""
    curated = (facts.curation or {}).get("domains", {})
    counted = (facts.tokens or {}).get("domains", {})
    return [
        {"domain": d}
        | {
            split: {"documents": None, "bytes": None, "tokens": None}
            | curated.get(d, {}).get(split, {})
            | counted.get(d, {}).get(split, {})
            for split in ("train", "heldout")
        }
        for d in facts.domains
        if d in curated or d in counted
    ]


def _base(recipe: dict[str, Any]) -> str:
    base = recipe.get("base") or {}
    if base.get("path"):
        return f"continued from {base['path']}" + (f" at revision {base['revision']}" if base.get("revision") else "")
    return "trained from scratch"


def _made(facts: RunFacts) -> str:
    """Time on the clock, and the machine of the training."""
    seconds = sum(manifest.seconds for manifest in facts.manifests.values())
    trained = facts.manifests.get("train")
    machine = trained.machine if trained else {}
    parts = [machine.get("device"), f"{machine['cores']} CPU cores" if machine.get("cores") else None]
    return " on ".join([duration(seconds), *([", ".join(map(str, filter(None, parts)))] if any(parts) else [])])


def _phase_rows(facts: RunFacts, recipe: dict[str, Any]) -> list[dict[str, Any]]:
    planned = {phase["name"]: phase for phase in (recipe.get("train") or {}).get("phases", [])}
    rows = []
    for phase in phases_of_model(facts):
        rate = (planned.get(phase["name"]) or {}).get("lr") or {}
        rows.append(
            {
                **{
                    key: phase.get(key)
                    for key in ("name", "tokens", "sequence_length", "tokens_per_step", "final_loss")
                },
                "lr": _rate(rate),
                "mixture": _shares(phase.get("mixture", {})),
                "changes": [
                    {"tokens": one["tokens"], "why": one["why"], "mixture": _shares(one["shares"])}
                    for one in phase.get("mixtures", [])
                ],
            }
        )
    return rows


def _shares(mixture: dict[str, float]) -> str:
    shares = sorted(mixture.items(), key=lambda entry: -entry[1])
    return ", ".join(f"{domain} {percent(share)}" for domain, share in shares)


def _rate(rate: dict[str, Any]) -> str:
    if rate.get("continues"):
        return "goes on from the phase before"
    if rate.get("peak") is None:
        return "–"
    peak = "the last rate" if rate["peak"] == "last" else f"{rate['peak']:g}"
    return f"{peak}, {rate.get('decay')} to {rate.get('to'):g}"


def _ledger_rows(facts: RunFacts) -> list[dict[str, Any]]:
    forgetting = (facts.evaluation or {}).get("forgetting") or {}
    return [{**forgetting.get(change.domain, {}), "change": change} for change in final_changes(facts)]


def _safety_rows(facts: RunFacts) -> list[dict[str, Any]]:
    """Rows `{label, cells}`: refusal before and after, over-refusal before and after; all, by concern, by language."""
    safety = (facts.evaluation or {}).get("safety") or {}
    columns = [(when, kind) for kind in ("refusal", "over_refusal") for when in ("before", "after")]
    rows = []
    for key in ("all", "by_concern", "by_language"):
        groups = [((safety.get(when) or {}).get(kind) or {}).get(key) or {} for when, kind in columns]
        groups = [{"all prompts": group} if key == "all" and group else group for group in groups]
        for label in dict.fromkeys(label for group in groups for label in group):
            rows.append({"label": label, "cells": [_interval(group.get(label)) for group in groups]})
    return rows


def _interval(rate: dict[str, Any] | None) -> str:
    if not rate:
        return "–"
    return f"{percent(rate['rate'])} ({percent(rate['low'])} to {percent(rate['high'])}, n={rate['total']})"


def _limits(facts: RunFacts, summary: dict[str, Any]) -> dict[str, Any]:
    """What the figures of this run say about the model's limits."""
    groups = domain_groups(facts)
    parameters = summary["model"]["parameters"]
    repeated = {
        (phase["name"], domain): epochs
        for phase in phases_of_model(facts)
        for domain, epochs in (phase.get("epochs_by_domain") or {}).items()
        if epochs and epochs > _MANY_EPOCHS
    }
    lost = [change for change in final_changes(facts) if groups[change.domain] == "known" and change.change > 0]
    return {"small": bool(parameters and parameters < _SMALL_MODEL), "repeated": repeated, "lost": lost}


def cell(text: Any, limit: int = 200) -> str:
    """Foreign text for one place in a Markdown line or table: one line, its markup and HTML without effect."""
    text = " ".join(plain(text, limit).split())
    text = re.sub(r"([\\`*\[\]|~$])", r"\\\1", text)
    # within a word an underscore is only itself, and `gpt_bigcode` stays readable in the source
    text = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)
    # at the start of a line these would begin a heading, a list or a rule
    text = re.sub(r"^(\d*)([#+=.)-])", r"\1\\\2", text)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _render(name: str, **content: Any) -> str:
    environment = Environment(
        loader=PackageLoader("aurora_m.release", "templates"),
        autoescape=False,  # Markdown, not HTML: `cell` is what makes foreign text harmless
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=lambda value: "–" if value is None else value,
    )
    environment.filters |= {
        "cell": cell,
        "percent": percent,
        "signed": lambda share: percent(share, signed=True),
        "size": lambda count: None if count is None else size(count),
        "tokens": lambda count: None if count is None else format_count(count),
        "count": lambda count: None if count is None else f"{count:,}",
        "bpb": lambda bpb: None if bpb is None else f"{bpb:.3f}",
        "duration": duration,
    }
    return environment.get_template(name).render(content)
