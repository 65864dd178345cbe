"""Tokens of two domains that contradict each other, so that a tiny model forgets one as it learns the other."""

from pathlib import Path
from typing import Any

import numpy as np
from tests.training.synthetic import tiny_base

from aurora_m.model import BaseConfig
from aurora_m.tokens import ShardWriter
from aurora_m.training import TrainConfig
from aurora_m.workspace import write_json

EOD = 0
SYMBOLS = 24
STEP = {"known": 1, "learned": -1}  # what follows a symbol is the next one, or the one before


def write_opposed(folder: Path, heldout: int = 24) -> Path:
    """A tokens folder; one symbol in four is a random one."""
    random = np.random.default_rng(7)
    facts: dict[str, Any] = {
        "tokenizer": {"kind": "trained", "vocab_size": SYMBOLS + 1, "eod_id": EOD, "fim": None},
        "domains": {},
    }
    for domain, step in STEP.items():
        facts["domains"][domain] = {}
        for split, count in (("train", 80), ("heldout", heldout)):
            with ShardWriter(folder / domain, split, SYMBOLS + 1) as writer:
                for number in range(count):
                    text = [int(random.integers(SYMBOLS))]
                    for _ in range(int(random.integers(20, 40))):
                        surprise = random.random() < 0.25
                        text.append(int(random.integers(SYMBOLS)) if surprise else (text[-1] + step) % SYMBOLS)
                    tokens = [*(1 + symbol for symbol in text), EOD]
                    writer.append(tokens, id=f"{split}{number}", source="made", lang=None, size=len(text))
            facts["domains"][domain][split] = {"documents": count, "bytes": writer.bytes, "tokens": writer.tokens}
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "tokenizer.json").write_text("{}")
    write_json(folder / "tokens.json", facts)
    return folder


def opposed_base() -> BaseConfig:
    return tiny_base(layers=1, hidden_size=16)


def opposed_config(**changes: Any) -> TrainConfig:
    """base on the one, CAP on the other; a checkpoint every second step of CAP."""
    shape = {"sequence_length": 32, "tokens_per_step": 512}
    phases = [
        {"name": "base", "tokens": 40 * 512, "mixture": {"known": 1.0}, "lr": {"peak": 2e-2, "to": 2e-3}, **shape},
        {"name": "CAP", "tokens": 8 * 512, "mixture": {"learned": 1.0}, "lr": {"peak": 4e-3, "to": 1e-3}, **shape},
    ]
    checkpoint = {"every": 2 * 512, "keep": 3}
    sections = {"phases": phases, "ledger": {"every": 100_000}, "checkpoint": checkpoint, "threads": 1} | changes
    return TrainConfig.model_validate(sections)
