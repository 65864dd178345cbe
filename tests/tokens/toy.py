"""Small domains for the tests of this room: curated parquet, token shards, documents in memory."""

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from aurora_m.tokens import ShardWriter

EOD, FIM_IDS = 0, {"prefix": 1, "middle": 2, "suffix": 3}

_WORDS = {
    "english": "the forest was quiet 1984 and nobody's lantern burned; rivers don't wait (really).",
    "finnish": "metsä oli hiljainen vuonna 1917 eikä kenenkään lyhty palanut, yötyö äänettä",
    "hindi": "जंगल शांत था और किसी का दीपक नहीं जल रहा था १२३ नदियाँ रुकती नहीं।",
    "japanese": "森は静かで、誰の灯も燃えていなかった。川は２０２４年も待たない。テスト",
    "code": "def f(x):\n    return x + 1  # comment\n\n\tif x != 0x1F: print(f'{x:>10}')\n",
}


def texts(domain: str, count: int = 60, seed: int = 0) -> list[str]:
    """Documents of one domain: shuffled words of one of the five kinds."""
    rng = random.Random(f"{domain} {seed}")
    words = _WORDS[domain].split(" ")
    return [" ".join(rng.choices(words, k=rng.randint(3, 60))) for _ in range(count)]


def write_curated(curated: Path, domain: str, documents: list[str], split: str = "train", part: int = 0) -> None:
    """`curated/<domain>/<split>-0000N.parquet` with the columns of the contract."""
    names = ["id", "text", "domain", "source", "url", "license", "lang", "meta"]
    schema = pa.schema([(name, pa.large_string() if name == "text" else pa.string()) for name in names])
    rows = [
        {"id": f"{split}{part}/{n}", "text": text, "domain": domain, "source": "toy", "lang": None, "meta": "{}"}
        for n, text in enumerate(documents)
    ]
    (curated / domain).mkdir(parents=True, exist_ok=True)
    path = curated / domain / f"{split}-{part:05}.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, compression="zstd")


def write_domain(tokens: Path, documents: list[list[int]], domain="toy", split="train", vocab_size=1000, **options):
    """Token shards of documents; the text of each is three bytes per token."""
    with ShardWriter(tokens / domain, split, vocab_size, **options) as writer:
        for number, document in enumerate(documents):
            writer.append(document, id=f"d{number}", source="s", lang=None, size=3 * len(document))


@dataclass
class Documents:
    """A domain in memory: document i is the tokens given, then EOD."""

    texts: list[list[int]]
    domain: str = "toy"
    absent: np.ndarray | None = None
    weights: np.ndarray | None = None

    def __post_init__(self):
        self.documents = len(self.texts)
        lengths = [len(text) + 1 for text in self.texts]
        self.tokens = sum(lengths)
        self.tokens_per_epoch = self.tokens if self.weights is None else float(self.weights @ np.array(lengths))

    def document(self, index: int) -> np.ndarray:
        return np.array([*self.texts[index], EOD], dtype=np.uint16)
