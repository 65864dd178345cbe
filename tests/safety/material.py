"""Harmless rows, a tokenizer and a tiny model that tuning can be tried on in a second."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from aurora_m.model import ArchitectureConfig, Decoder, save_model
from aurora_m.tokens import TokenizerConfig, TokenizerTrainConfig, tokenize
from aurora_m.workspace import Progress, write_json

QUIET = Progress(quiet=True)
ANSWERS = {"redteam": "I can't help with that, because it is forbidden.", "lookalike": "Gladly: take the left door."}


def row(number: int, **changes) -> dict:
    """Row `number`: kinds, concerns and languages take turns, every third row is for testing."""
    kind = ("redteam", "lookalike")[number % 2]
    return {
        "id": f"row-{number}",
        "kind": kind,
        "concern": ("harm", "cyber", "cbrn", "illegal", "privacy", "evasion")[number % 6],
        "lang": ("en", "fi")[number // 2 % 2],
        "instruction": f"{'forbidden' if kind == 'redteam' else 'harmless'} question {number}",
        "response": ANSWERS[kind],
        "split": "test" if number % 3 == 2 else "train",
        "review": {"status": "unreviewed", "reviewers": [], "note": ""},
        "source": "made",
        "license": "CC0-1.0",
        **changes,
    }


def write_rows(path: Path, rows: list) -> Path:
    """A JSON-lines file; strings are written as they are."""
    lines = [line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_tokens(folder: Path) -> Path:
    """A tokens folder as the tokenize stage writes it, of one domain of a few sentences."""
    curated, out = folder / "curated", folder / "tokens"
    (curated / "notes").mkdir(parents=True)
    texts = [f"{kind} question {n}. {ANSWERS['redteam']} {ANSWERS['lookalike']}" for n in range(20) for kind in "ab"]
    for split, part in (("train", texts[:32]), ("heldout", texts[32:])):
        columns = {"id": [f"{split}-{n}" for n in range(len(part))], "text": part, "source": "made", "lang": "en"}
        columns = {name: [value] * len(part) if isinstance(value, str) else value for name, value in columns.items()}
        pq.write_table(pa.table(columns), curated / "notes" / f"{split}-00000.parquet")
    write_json(curated / "curation.json", {"domains": {"notes": {}}})
    out.mkdir()
    config = TokenizerConfig(train=TokenizerTrainConfig(vocab_size=400, domains=["notes"]))
    tokenize(config, curated, out, base_folder=None, seed=1, progress=QUIET)
    return out


def write_trained(folder: Path, tokens: Path, seed: int = 0) -> Path:
    """A train folder: an untrained model of 64 positions at the end of a phase CAT."""
    facts = json.loads((tokens / "tokens.json").read_text())["tokenizer"]
    shape = ArchitectureConfig(layers=1, hidden_size=32, heads=2, max_positions=128)
    model = Decoder(shape.model_config_for(facts["vocab_size"]))
    model.init_weights(seed)
    save_model(model, folder / "CAT" / "model", tokens / "tokenizer", eod_id=facts["eod_id"])
    phase = {"name": "CAT", "sequence_length": 64, "mixture": {"notes": 1.0}}
    write_json(folder / "train.json", {"final_model": "CAT/model", "phases": [phase]})
    return folder
