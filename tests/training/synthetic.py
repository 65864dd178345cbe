"""A tokens folder without a tokenize stage: random documents that a tiny model can learn something from."""

from pathlib import Path

import numpy as np

from aurora_m.model import ArchitectureConfig, BaseConfig
from aurora_m.tokens import ShardWriter
from aurora_m.training import TrainConfig
from aurora_m.workspace import write_json

VOCAB_SIZE = 300
EOD = 0
DOMAINS = ("aa", "bb", "cc")


def write_tokens(folder: Path, domains=DOMAINS, documents: int = 60, seed: int = 0) -> Path:
    """Each domain walks up its own part of the vocabulary, so losses differ by domain and fall with training."""
    random = np.random.default_rng(seed)
    facts: dict = {
        "tokenizer": {"kind": "trained", "vocab_size": VOCAB_SIZE, "eod_id": EOD, "fim": None},
        "domains": {},
    }
    for number, domain in enumerate(domains):
        facts["domains"][domain] = {}
        for split, count in (("train", documents), ("heldout", 8)):
            with ShardWriter(folder / domain, split, VOCAB_SIZE) as writer:
                for index in range(count):
                    steps = random.integers(1, 3 + number, size=int(random.integers(20, 60)))
                    text = 5 + (np.cumsum(steps) + random.integers(290)) % 290
                    writer.append(
                        [*text.tolist(), EOD], id=f"{split}{index}", source="made", lang=None, size=4 * len(text)
                    )
            facts["domains"][domain][split] = {"documents": count, "bytes": writer.bytes, "tokens": writer.tokens}
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "tokenizer.json").write_text("{}")
    write_json(folder / "tokens.json", facts)
    return folder


def tiny_base(**changes) -> BaseConfig:
    sizes = {"layers": 2, "hidden_size": 32, "heads": 2, "max_positions": 64} | changes
    return BaseConfig(architecture=ArchitectureConfig(**sizes))


def tiny_config(**changes) -> TrainConfig:
    """base of 12 steps, then CAP of 10 that goes on to another mixture, sequence length and rate."""
    phases = [
        {
            "name": "base",
            "tokens": 12 * 128,
            "mixture": {"aa": 0.75, "bb": 0.25},
            "sequence_length": 32,
            "tokens_per_step": 128,
            "lr": {"peak": 3e-3, "warmup": "2 steps", "to": 3e-4},
        },
        {
            "name": "CAP",
            "tokens": 10 * 192,
            "mixture": {"aa": 0.25, "bb": 0.25, "cc": 0.5},
            "sequence_length": 64,
            "tokens_per_step": 192,
            "lr": {"peak": 2e-3, "warmup": 200, "decay": "linear"},
        },
    ]
    sections = {"phases": phases, "ledger": {"every": 1000}, "checkpoint": {"every": 600}, "threads": 1} | changes
    return TrainConfig.model_validate(sections)
