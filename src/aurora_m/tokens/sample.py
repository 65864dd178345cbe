"""Documents to learn a vocabulary from: so many bytes of a domain, drawn evenly over its files."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from aurora_m.workspace import DataError

from .curated import curated_files, read_rows, text_bytes
from .order import draws, named_key


def sample_documents(curated: Path, domain: str, wanted_bytes: int, seed: int, key: str) -> Iterator[str]:
    """Training documents until `wanted_bytes` of UTF-8 are reached, always the same ones for a seed.

    `key` is that of the recipe which names the domain.

    Raises:
        DataError: the domain has no curated documents.
    """
    files = curated_files(curated, domain, "train")
    if not files:
        raise DataError(
            f"{key} names '{domain}', which has no curated documents in {curated / domain}; curate it or leave it out"
        )
    return _draw_documents(files, domain, wanted_bytes, seed)


def _draw_documents(files: list[Path], domain: str, wanted_bytes: int, seed: int) -> Iterator[str]:
    # A little over the share wanted, as sizes vary; the count below cuts the surplus.
    share = 1.05 * wanted_bytes / max(sum(map(text_bytes, files)), 1)
    key = named_key("tokenizer", seed, domain)
    taken = row = 0
    for file in files:
        for batch in read_rows(file, ["text"]):
            chosen = draws(np.arange(row, row + len(batch)), 1, key)[:, 0] < share
            row += len(batch)
            for text in batch["text"].filter(pa.array(chosen)).to_pylist():
                yield text
                taken += len(text.encode())
                if taken >= wanted_bytes:
                    return
