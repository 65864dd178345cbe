"""Sections 1 and 2 of the report: what curation dropped and why, and what data was left."""

from pathlib import Path
from typing import Any

from aurora_m.release import RunFacts, licenses_of, obligations, plain

from .scores import score_figures

SAMPLE_CHARACTERS = 300
_LINE_CHARACTERS = 120
_SAMPLES_PER_REASON = 3
_SAMPLES_PER_DOMAIN = 12
_MAX_ROWS = 40
_MAX_LABELS = 8  # languages found that no domain is in; the rest is one column
_MAX_SOURCES = 200
_PASS_LABELS = {
    "read": "read",
    "license": "licence permits",
    "url": "address permits",
    "normalise": "normalised",
    "boilerplate": "boilerplate",
    "language": "language check",
    "code_language": "code language",
    "quality": "quality rules",
    "model_scores": "model scores",
    "decontaminate": "decontaminated",
    "redact": "redacted",
    "exact_duplicates": "exact duplicates",
    "near_duplicates": "near duplicates",
    "repeated_text": "repeated text",
}


def curation_section(facts: RunFacts) -> dict[str, Any] | None:
    """The funnel of every domain, the reasons over all domains, redactions, and a sample of what was dropped."""
    if not facts.curation:
        return None
    domains = facts.curation["domains"]
    counted = (facts.tokens or {}).get("domains", {})
    code = [name for name, domain in domains.items() if domain.get("code_languages")]
    return {
        "funnels": [_funnel(name, domain, counted.get(name, {})) for name, domain in domains.items()],
        "domains": list(domains),
        "reasons": _by_domain({n: _reasons(d) for n, d in domains.items()}, list(domains)),
        "redactions": _by_domain({n: d.get("redactions", {}) for n, d in domains.items()}, list(domains)),
        "rejected": _by_domain({n: _rejected(d) for n, d in domains.items()}, list(domains)),
        "scores": score_figures(domains, facts.domains),
        "score_domains": [name for name in facts.domains if domains.get(name, {}).get("scores")],
        "languages": _language_confusion(domains),
        "foreign": _foreign_paragraphs(domains),
        "code_languages": _by_domain({n: domains[n]["code_languages"] for n in code}, code),
        "code_domains": code,
        "duplicates": facts.curation.get("duplicates"),
        "clusters": _clusters(facts.curation.get("duplicates") or {}),
        "warnings": [plain(warning) for warning in facts.curation.get("warnings", [])],
        "decontamination": _decontamination(facts.curation),
        "boilerplate": _boilerplate(domains),
        "repeated_text": _repeated_text(domains),
        "samples": {n: s for n in domains if (s := dropped_sample(facts.run / "curated" / n / "dropped.parquet"))},
    }


def _funnel(name: str, domain: dict[str, Any], counted: dict[str, Any]) -> dict[str, Any]:
    """What was left after every pass. `counted` is the domain's part of tokens.json, empty before it was tokenized.

    Only what was kept is ever tokenized. Tokens of what was left before are its bytes at the bytes per token of the
    domain's kept text, and so are all tokens where the counts are of another curation than this one.
    """
    passes = domain.get("passes", [])
    documents = max((p["documents_in"] for p in passes), default=0) or 1
    size = max((p["bytes_in"] for p in passes), default=0) or 1
    tokens, tokenized = (sum(split.get(key) or 0 for split in counted.values()) for key in ("tokens", "bytes"))
    steps = [
        {
            "label": _PASS_LABELS.get(p["name"], p["name"].replace("_", " ")),
            "documents": p["documents_out"],
            "bytes": p["bytes_out"],
            "documents_share": p["documents_out"] / documents,
            "bytes_share": p["bytes_out"] / size,
            "dropped": p["documents_in"] - p["documents_out"],
            "tokens": p["bytes_out"] * tokens / tokenized if tokenized else None,
            "tokens_counted": p is passes[-1] and p["bytes_out"] == tokenized > 0,
        }
        for p in passes
    ]
    return {"name": name, "steps": steps, "documents_in": documents, "bytes_in": size, "has_tokens": tokenized > 0}


def _decontamination(curation: dict[str, Any]) -> dict[str, Any] | None:
    """The evaluation sets, and where the most documents held their texts."""
    found = curation.get("decontamination")
    if not found:
        return None
    overlaps = sorted(found["overlaps"], key=lambda one: -one["documents"])
    return {"sets": found["sets"], "overlaps": overlaps[:_MAX_ROWS], "overlap_count": len(overlaps)}


def _boilerplate(domains: dict[str, Any]) -> dict[str, Any] | None:
    """What was removed from every domain, and the lines removed most; they are hostile text, not yet escaped."""
    removed = {name: domain["boilerplate"] for name, domain in domains.items() if domain.get("boilerplate")}
    lines = [
        {"domain": name, **line, "line": plain(line["line"], _LINE_CHARACTERS)}
        for name, one in removed.items()
        for line in one["top"]
    ]
    if not lines:
        return None
    totals = [{"domain": name, **one} for name, one in removed.items() if one["lines"]]
    return {"totals": totals, "lines": sorted(lines, key=lambda line: -line["removed"])[:_MAX_ROWS]}


def _language_confusion(domains: dict[str, Any]) -> dict[str, Any] | None:
    """Rows: the language each domain should be in; columns: what its documents were found to be, most frequent first.

    A cell is how many documents, and their share of the row.
    """
    found = {
        (name, expected): detected
        for name, domain in domains.items()
        for expected, detected in domain.get("languages", {}).items()
        if detected
    }
    if not found:
        return None
    totals: dict[str, int] = {}
    for detected in found.values():
        for label, documents in detected.items():
            totals[label] = totals.get(label, 0) + documents
    own = [expected for expected in dict.fromkeys(expected for _, expected in found) if expected in totals]
    others = sorted((label for label in totals if label not in own), key=lambda label: (-totals[label], label))
    shown = others[:_MAX_LABELS]
    rows = []
    for (name, expected), detected in found.items():
        documents = sum(detected.values())
        rest = sum(detected.get(label, 0) for label in others[_MAX_LABELS:])
        counts = [*(detected.get(label, 0) for label in own + shown), *([rest] if others[_MAX_LABELS:] else [])]
        labels = [*own, *shown, "others"]
        cells = [
            {"count": count, "share": count / documents, "own": label == expected}
            for label, count in zip(labels, counts, strict=False)
        ]
        rows.append({"domain": name, "expected": expected, "cells": cells})
    labels = [*own, *shown, *(["others"] if others[_MAX_LABELS:] else [])]
    return {"labels": [reason_label(label) for label in labels], "rows": rows}


def _foreign_paragraphs(domains: dict[str, Any]) -> list[dict[str, Any]]:
    """What was removed from documents that stay: a row for every domain and language, most bytes first."""
    rows = [
        {"domain": name, "language": language, **counts}
        for name, domain in domains.items()
        for language, counts in domain.get("foreign_paragraphs", {}).get("languages", {}).items()
    ]
    return sorted(rows, key=lambda row: -row["bytes"])[:_MAX_ROWS]


def _repeated_text(domains: dict[str, Any]) -> dict[str, Any] | None:
    """What was removed from every domain, and the passages removed most; they are hostile text, not yet escaped."""
    removed = {
        name: one for name, d in domains.items() if (one := d.get("repeated_text")) and one["passages"] + one["spans"]
    }
    if not removed:
        return None
    top = [
        {"domain": name, "removed": passage["removed"], "text": plain(passage["text"], _LINE_CHARACTERS)}
        for name, one in removed.items()
        for passage in one["top"]
    ]
    totals = [{"domain": name, **one} for name, one in removed.items()]
    return {"totals": totals, "top": sorted(top, key=lambda passage: -passage["removed"])[:_MAX_ROWS]}


def _clusters(duplicates: dict[str, Any]) -> list[dict[str, Any]]:
    """The largest clusters of near-duplicates; ids and texts are hostile text, not yet escaped."""

    def shown(document: dict[str, str]) -> dict[str, str]:
        return {key: plain(value, _LINE_CHARACTERS) for key, value in document.items()}

    return [
        {**one, "kept": shown(one["kept"]), "some": [shown(other) for other in one["some"]]}
        for one in duplicates.get("largest_clusters", [])
    ]


def _reasons(domain: dict[str, Any]) -> dict[str, int]:
    reasons: dict[str, int] = {}
    # what reading rejects has a table of its own, `rejected_records`
    for step in (step for step in domain.get("passes", []) if step["name"] != "read"):
        for reason, dropped in step.get("dropped", {}).items():
            label = reason_label(reason)
            reasons[label] = reasons.get(label, 0) + dropped["documents"]
    return reasons


def _rejected(domain: dict[str, Any]) -> dict[str, int]:
    return {reason_label(reason): records for reason, records in domain.get("rejected_records", {}).items()}


def reason_label(reason: str) -> str:
    """`quality:stop_word_ratio` → `quality: stop word ratio`."""
    return reason.replace(":", ": ").replace("_", " ")


def _by_domain(counts: dict[str, dict[str, int]], domains: list[str]) -> list[dict[str, Any]]:
    """Rows `{label, counts: one per domain, total}` of a table with domains as columns, largest total first.

    Past `_MAX_ROWS` the rest is one row.
    """
    labels = dict.fromkeys(label for by_label in counts.values() for label in by_label)
    found = [(label, [counts.get(domain, {}).get(label, 0) for domain in domains]) for label in labels]
    found = sorted((row for row in found if any(row[1])), key=lambda row: -sum(row[1]))
    if rest := [row[1] for row in found[_MAX_ROWS:]]:
        found[_MAX_ROWS:] = [(f"{len(rest)} others", [sum(column) for column in zip(*rest, strict=True)])]
    return [{"label": label, "counts": by_domain, "total": sum(by_domain)} for label, by_domain in found]


def dropped_sample(path: Path) -> list[dict[str, str]]:
    """A few dropped documents for every reason, cut to `SAMPLE_CHARACTERS`; they are hostile text, not yet escaped.

    Read a few rows at a time: the sample may hold documents of any length.
    """
    if not path.exists():
        return []
    import pyarrow.parquet as pq

    shown: dict[str, list[dict[str, str]]] = {}
    file = pq.ParquetFile(path)
    columns = [name for name in ("id", "source", "text", "drop_reason") if name in file.schema_arrow.names]
    for batch in file.iter_batches(batch_size=16, columns=columns):
        for row in batch.to_pylist():
            documents = shown.setdefault(row.get("drop_reason") or "no reason given", [])
            if len(documents) < _SAMPLES_PER_REASON:
                text = plain(row.get("text") or "", SAMPLE_CHARACTERS)
                documents.append({"text": text, "id": plain(row.get("id"), 80), "source": plain(row.get("source"), 80)})
    # one of every reason before the second of any
    turns = [(turn, reason) for reason, documents in shown.items() for turn in range(len(documents))]
    order = sorted(turns, key=lambda entry: entry[0])[:_SAMPLES_PER_DOMAIN]
    return [{"reason": reason_label(reason), **shown[reason][turn]} for turn, reason in order]


def data_section(facts: RunFacts) -> dict[str, Any] | None:
    """What was trained on and what was held out, per domain, and each source with its licence."""
    if not facts.curation and not facts.tokens:
        return None
    curated = (facts.curation or {}).get("domains", {})
    counted = (facts.tokens or {}).get("domains", {})
    names = [d for d in facts.domains if d in curated or d in counted]
    rows = [_data_row(name, curated.get(name, {}), counted.get(name, {})) for name in names]
    total = {
        split: {key: sum(row[split].get(key) or 0 for row in rows) for key in ("documents", "bytes", "tokens")}
        for split in ("train", "heldout")
    }
    kept = {name: domain.get("sources", {}) for name, domain in curated.items()}
    licenses = _by_domain({name: licenses_of(sources) for name, sources in kept.items()}, names)
    sources = [
        {"domain": name, "name": source, **counts, "licenses": licenses_of({source: counts})}
        for name, by_source in kept.items()
        for source, counts in by_source.items()
    ]
    return {
        "rows": rows,
        "total": total,
        "domains": names,
        "licenses": [{**row, "asks": obligations(row["label"])} for row in licenses],
        "sources": sorted(sources, key=lambda source: -source["bytes_kept"])[:_MAX_SOURCES],
        "source_count": len(sources),
        "tokenizer": (facts.tokens or {}).get("tokenizer"),
    }


def _data_row(name: str, curated: dict[str, Any], counted: dict[str, Any]) -> dict[str, Any]:
    splits = {split: {**curated.get(split, {}), **counted.get(split, {})} for split in ("train", "heldout")}
    tokens, size = (sum(split.get(key) or 0 for split in splits.values()) for key in ("tokens", "bytes"))
    return {
        "name": name,
        **splits,
        "tokens_per_byte": tokens / size if tokens and size else None,
        "base_tokens_per_byte": splits["heldout"].get("base_tokens_per_byte"),
    }
