"""An invented run folder with plausible contents in every file a run leaves, hostile text included."""

import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

HOSTILE = "<script>alert(1)</script>"
KNOWN = ("en", "code")
NEW = ("fi", "hi", "ja", "vi")
DOMAINS = (*KNOWN, *NEW)
BASE_BPB = {"en": 1.62, "code": 1.21, "fi": 2.71, "hi": 1.44, "ja": 1.93, "vi": 2.35}
LAST_BPB = {"en": 1.69, "code": 1.23, "fi": 1.78, "hi": 0.83, "ja": 1.31, "vi": 1.49}
PHASES = (("base", 2_000_000), ("CAP", 1_600_000), ("CAT", 400_000))
MIXTURES = {
    "base": {"en": 0.6, "code": 0.4},
    "CAP": {"en": 0.15, "code": 0.1, "fi": 0.2, "hi": 0.2, "ja": 0.2, "vi": 0.15},
    "CAT": {"en": 0.2, "code": 0.2, "fi": 0.15, "hi": 0.15, "ja": 0.15, "vi": 0.15},
}
TOKENS_PER_STEP = 8_192
CONCERNS = (
    "harm to people",
    "cyber-attacks",
    "weapons",
    "illegal acts",
    "privacy and rights",
    "getting around controls",
)


STAGES = ("curate", "tokenize", "train", "align", "evaluate")


def make_run(run: Path, stages: tuple[str, ...] = STAGES) -> Path:
    """Writes the files of the named stages below `run`."""
    write = {
        "curate": _curate,
        "tokenize": _tokenize,
        "train": _train,
        "align": _align,
        "evaluate": _evaluate,
    }
    _json(run / "recipe.json", recipe())
    for number, stage in enumerate(stages):
        write[stage](run)
        _manifest(run, stage, seconds=(9.4, 4.1, 171.0, 22.5, 31.2)[number % 5])
    return run


def recipe() -> dict:
    return {
        "name": "quickstart",
        "seed": 17,
        "base": {"architecture": {"family": "gpt_bigcode", "layers": 4, "hidden_size": 256, "heads": 4}, "path": None},
        "domains": {
            d: {
                "lang": None if d == "code" else d,
                "rules": "code" if d == "code" else "text",
                "sources": [{"kind": "jsonl", "path": f"/data/{d}.jsonl.zst", "license": "CC-BY-4.0"}],
            }
            for d in DOMAINS
        },
        "train": {
            "phases": [{"name": name, "tokens": tokens, "mixture": MIXTURES[name]} for name, tokens in PHASES],
            "optimizer": {"beta1": 0.9, "beta2": 0.95},
        },
        "release": {"name": None, "license": "apache-2.0", "author": f"A | B {HOSTILE}"},
    }


def _curate(run: Path) -> None:
    domains = {}
    for number, domain in enumerate(DOMAINS):
        documents, size = 900 + 370 * number, (900 + 370 * number) * 6_100
        dropped = [
            ("read", {}),
            ("normalise", {}),
            ("language", {"language:other": 0.03, "language:mixed": 0.01} if domain != "code" else {}),
            ("quality", {"quality:stop_word_ratio": 0.04, "quality:repeated_lines": 0.02, "quality:too_short": 0.015}),
            ("exact_duplicates", {"exact_duplicate": 0.02}),
            ("near_duplicates", {"near_duplicate": 0.06}),
        ]
        passes, left, left_bytes = [], documents, size
        for name, reasons in dropped:
            gone = {
                reason: {"documents": int(documents * share), "bytes": int(size * share * 0.6)}
                for reason, share in reasons.items()
            }
            entry = {"name": name, "documents_in": left, "bytes_in": left_bytes}
            left -= sum(reason["documents"] for reason in gone.values())
            left_bytes -= sum(reason["bytes"] for reason in gone.values())
            passes.append({**entry, "documents_out": left, "bytes_out": left_bytes, "dropped": gone, "seconds": 0.4})
        heldout = max(8, int(left * 0.02))
        sources = {
            "own/" + domain: (0.8, {"CC-BY-4.0": int(left * 0.8)}),
            "someone/else | " + HOSTILE: (0.2, {"CC-BY-NC-SA-4.0": int(left * 0.15), "": int(left * 0.05)}),
        }
        domains[domain] = {
            "sources": {
                name: {
                    "documents_in": int(documents * share),
                    "bytes_in": int(size * share),
                    "documents_kept": int(left * share),
                    "bytes_kept": int(left_bytes * share),
                    "licenses": licenses,
                }
                for name, (share, licenses) in sources.items()
            },
            "passes": passes,
            "languages": {} if domain == "code" else {domain: {domain: 900, "en": 12, "mixed": 3}},
            "code_languages": {"python": 70, HOSTILE: 2} if domain == "code" else {},
            "foreign_paragraphs": {"documents": 4, "languages": {HOSTILE: {"paragraphs": 5, "bytes": 900}}},
            "redactions": {"email": 12 * number, "phone": 3, "ip": 1, "key": 0},
            "train": {"documents": left - heldout, "bytes": int(left_bytes * 0.98)},
            "heldout": {"documents": heldout, "bytes": int(left_bytes * 0.02)},
            "boilerplate": {
                "documents": 9,
                "lines": 12,
                "bytes": 400,
                "top": [{"source": HOSTILE, "line": HOSTILE, "removed": 12}],
            },
            "repeated_text": {
                "documents": 7,
                "passages": 8,
                "characters": 900,
                "spans": 2,
                "span_words": 120,
                "bytes": 950,
                "top": [{"text": HOSTILE, "removed": 5}],
            },
            "rejected_records": {"not JSON": number, "no text": 2} if number else {},
        }
        _dropped(run / "curated" / domain / "dropped.parquet", domain)
    result: dict = {"domains": domains, "seconds": 9.4, "cpu_seconds": 15.2, "bytes_in": 65_000_000}
    found = {"documents": 3, "items": 2, "longest_words": 41}
    result["decontamination"] = {
        "sets": [{"name": "gsm8k", **found, "items": 99, "texts": 198, "texts_too_short": 1, "items_found": 2}],
        "overlaps": [{"set": "gsm8k", "domain": next(iter(domains)), "source": HOSTILE, **found}],
    }
    _json(run / "curated" / "curation.json", result)


def _dropped(path: Path, domain: str) -> None:
    texts = [
        (f"{HOSTILE} tail " + "word " * 400, "quality:stop_word_ratio"),
        ("यह एक वाक्य है। " * 3, "language:other"),
        ("これは日本語の文です。" * 3 + "\u202e reversed \x07", "near_duplicate"),
        ("Copyright 2020. All rights reserved.\n" * 12, "quality:repeated_lines"),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(
        {
            "id": [f"{domain}-{n}" for n in range(len(texts))],
            "text": pa.array([text for text, _ in texts], pa.large_string()),
            "domain": [domain] * len(texts),
            "source": [f"own/{domain}"] * len(texts),
            "drop_reason": [reason for _, reason in texts],
        }
    )
    pq.write_table(table, path, compression="zstd")


def _tokenize(run: Path) -> None:
    per_token = {"en": 3.9, "code": 3.1, "fi": 3.4, "hi": 5.1, "ja": 4.2, "vi": 3.6}
    domains = {}
    for number, domain in enumerate(DOMAINS):
        size = (900 + 370 * number) * 4_800
        domains[domain] = {
            "train": {"documents": 760 + 300 * number, "bytes": size, "tokens": int(size / per_token[domain])},
            "heldout": {"documents": 16 + number, "bytes": size // 50, "tokens": int(size / 50 / per_token[domain])},
        }
    tokenizer = {"kind": "trained", "fingerprint": "ab12" * 16, "vocab_size": 8192, "eod_id": 0, "fim": None}
    _json(
        run / "tokens" / "tokens.json", {"tokenizer": tokenizer, "domains": domains, "seconds": 4.1, "cpu_seconds": 7.0}
    )


def _train(run: Path) -> None:
    rows, ledger, phases = [], [], []
    seen, step, given = 0, 0, dict.fromkeys(DOMAINS, 0.0)
    for name, budget in PHASES:
        start, mixture, before = seen, MIXTURES[name], dict(given)
        steps = budget // TOKENS_PER_STEP
        for n in range(steps):
            seen, step = seen + TOKENS_PER_STEP, step + 1
            given = {d: given[d] + TOKENS_PER_STEP * mixture.get(d, 0) for d in DOMAINS}
            loss = (
                2.6
                + 5.5 * math.exp(-seen / 500_000)
                + 0.15 * math.sin(step * 1.7)
                + (0.8 if name == "CAP" and n < 20 else 0)
            )
            by_domain = {d: loss + 0.3 * (number - 2) for number, d in enumerate(DOMAINS) if d in mixture}
            rows.append(
                {
                    "kind": "step",
                    "phase": name,
                    "step": step,
                    "tokens": seen,
                    "loss": loss,
                    "lr": 1e-3 * min(1, (n + 1) / 20) * (0.55 + 0.45 * math.cos(math.pi * n / steps)),
                    "grad_norm": 1.0 + 0.2 * math.sin(step),
                    "tokens_per_second": 24_000.0,
                    "loss_by_domain": by_domain,
                    "tokens_by_domain": {d: round(count) for d, count in given.items()},
                    "seconds": 0.34,
                }
            )
            if n % 20 == 0 or n == steps - 1:
                ledger += [_ledger_row(name, step, seen, d) for d in DOMAINS]
        phases.append(
            {
                "name": name,
                "tokens": budget,
                "steps": steps,
                "seconds": budget / 24_000,
                "start_tokens": start,
                "sequence_length": 512,
                "tokens_per_step": TOKENS_PER_STEP,
                "mixture": mixture,
                "tokens_by_domain": {d: round(given[d] - before[d]) for d in DOMAINS if d in mixture},
                "epochs_by_domain": {d: 1.4 if d != "code" else 4.6 for d in mixture},
                "final_loss": loss,
            }
        )
    (run / "train").mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row) for row in rows]
    (run / "train" / "metrics.jsonl").write_text("\n".join([*lines, '{"kind": "step", "los']), encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(ledger), run / "train" / "ledger.parquet")
    _json(
        run / "train" / "train.json",
        {
            "base_model": "base/model",
            "final_model": "CAT/model",
            "phases": phases,
            "parameters": 5_300_000,
            "tokens": seen,
            "seconds": 171.0,
            "energy": {"kwh": 0.00321, "kwh_by_kind": {"cpu": 0.00321}, "kwh_per_billion_tokens": 0.8025},
        },
    )


def _ledger_row(phase: str, step: int, seen: int, domain: str) -> dict:
    base_tokens = PHASES[0][1]
    last = sum(tokens for _, tokens in PHASES)
    base, end = BASE_BPB[domain], LAST_BPB[domain]
    known = phase == "base"
    if known:
        bpb = base + 4.5 * math.exp(-seen / 450_000) - 4.5 * math.exp(-base_tokens / 450_000)
    else:
        share = (seen - base_tokens) / (last - base_tokens)
        bpb = base + (end - base) * (1 - math.exp(-4 * share)) / (1 - math.exp(-4))
        bpb += 0.05 * math.exp(-8 * share) * (domain in KNOWN)
    return {
        "phase": phase,
        "step": step,
        "tokens": seen,
        "domain": domain,
        "bpb": bpb,
        "base_bpb": None if known else base,
        "change": None if known else bpb / base - 1,
        "stderr": 0.02 * bpb,
        "documents": 16,
        "bytes": 60_000,
    }


def _align(run: Path) -> None:
    rows = [
        {
            "kind": "step",
            "phase": "SFT",
            "step": n + 1,
            "tokens": 2_048 * (n + 1),
            "loss": 3.1 * math.exp(-n / 30) + 0.4,
            "loss_by_domain": {"safety": 3.1 * math.exp(-n / 30) + 0.4},
            "lr": 2e-4 * (1 - n / 60),
        }
        for n in range(60)
    ]
    (run / "align").mkdir(parents=True, exist_ok=True)
    (run / "align" / "metrics.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    result = {
        "final_model": "SFT/model",
        "examples": 96,
        "tokens": 122_880,
        "response_tokens": 61_000,
        "truncated": 0,
        "epochs": 3,
        "review": {"unreviewed": 90, "approved": 6},
        "seconds": 22.5,
    }
    _json(run / "align" / "align.json", result)


def _rate(refused: int, total: int) -> dict:
    share, z = refused / total, 1.96
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return {"refused": refused, "total": total, "rate": share, "low": middle - half, "high": middle + half}


def _measured(refused: int) -> dict:
    return {
        "all": _rate(refused * 4, 24),
        "by_concern": {concern: _rate(min(4, refused), 4) for concern in CONCERNS},
        "by_language": {d: _rate(min(5, refused), 5) for d in DOMAINS if d != "code"},
    }


def _evaluate(run: Path) -> None:
    forgetting = {
        d: {
            "base_bpb": BASE_BPB[d],
            "trained_bpb": LAST_BPB[d],
            "aligned_bpb": LAST_BPB[d] * 1.01,
            "trained_change": LAST_BPB[d] / BASE_BPB[d] - 1,
            "aligned_change": LAST_BPB[d] * 1.01 / BASE_BPB[d] - 1,
        }
        for d in DOMAINS
    }
    models = {
        name: {
            "path": name,
            "bpb": {d: row[f"{name}_bpb"] for d, row in forgetting.items()},
            "stderr": dict.fromkeys(DOMAINS, 0.02),
        }
        for name in ("base", "trained", "aligned")
    }
    safety = {
        "before": {"refusal": _measured(0), "over_refusal": _measured(0)},
        "after": {"refusal": _measured(4), "over_refusal": _measured(1)},
    }
    _json(
        run / "evaluation" / "evaluation.json",
        {"models": models, "forgetting": forgetting, "safety": safety, "seconds": 31.2},
    )
    answers = [
        {
            "model": model,
            "id": f"{kind}-{lang}",
            "kind": kind,
            "concern": "cyber-attacks",
            "lang": lang,
            "instruction": f"{HOSTILE} How do I {kind}?",
            "answer": "I cannot help with that, because ..." if model == "after" else f"and then {HOSTILE} " * 30,
            "refused": model == "after",
        }
        for kind in ("redteam", "lookalike")
        for lang in ("fi", "hi")
        for model in ("before", "after")
    ]
    (run / "evaluation" / "answers.jsonl").write_text(
        "\n".join(json.dumps(row) for row in answers) + "\n", encoding="utf-8"
    )


def _manifest(run: Path, stage: str, seconds: float) -> None:
    manifest = {
        "stage": stage,
        "fingerprint": "0" * 64,
        "config": {},
        "inputs": {},
        "versions": {"python": "3.11.9", "torch": "2.13.0", "aurora-m": "0.1.0"},
        "machine": {"system": "Linux-6.1-x86_64", "cores": 2, "memory": 8_000_000_000},
        "counts": {},
        "seconds": seconds,
        "cpu_seconds": seconds * 1.8,
        "peak_memory_bytes": int(1.1e9 + seconds * 4e6),
        "finished": "2026-11-23T09:30:00+0000",
    }
    _json(run / "manifests" / f"{stage}.json", manifest)


def _json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
