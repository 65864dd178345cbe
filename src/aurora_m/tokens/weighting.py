"""How often a document is read: weights from curated columns, and which of an epoch's rounds visit a document.

Where documents have weights, an epoch is as many rounds as the largest weight, rounded up, and each round goes through
all documents in an order of its own (visits.py). A document of weight w is visited in floor(w) or ceil(w) of them, as
evenly spread as they can be; which ones is a pure function of seed, domain, epoch and document.
"""

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from aurora_m.workspace import DataError

from .order import draws, named_key

MOST_WEIGHT = 1000


def document_weights(batch: pa.RecordBatch, columns: Sequence[str]) -> np.ndarray:
    """float32[n], the product of the columns a batch has; `meta.<name>` is a value in the column meta. Nulls count 1.

    Raises:
        DataError: a value is no number of 0 to MOST_WEIGHT.
    """
    weights = np.ones(len(batch), np.float64)
    for column in columns:
        if column in batch.schema.names:
            weights *= _numbers(batch[column].to_pylist(), column, batch)
        elif column.startswith("meta.") and "meta" in batch.schema.names:
            weights *= _numbers(_of_meta(batch["meta"], column.removeprefix("meta.")), column, batch)
    _check(weights, weights.tolist(), "the product of its weights", batch)
    return weights.astype(np.float32)


def stored_columns(columns: Sequence[str]) -> list[str]:
    """The columns that hold these weights."""
    return list(dict.fromkeys("meta" if column.startswith("meta.") else column for column in columns))


def _of_meta(meta: pa.Array, name: str) -> list[Any]:
    found: dict[str | None, Any] = {}
    values = meta.to_pylist()
    for text in set(values):
        found[text] = json.loads(text).get(name) if text and name in text else None
    return [found[text] for text in values]


def _numbers(values: list[Any], column: str, batch: pa.RecordBatch) -> np.ndarray:
    numbers = np.ones(len(values))
    for place, value in enumerate(values):
        if value is not None:
            try:
                numbers[place] = float(value)
            except (TypeError, ValueError):
                numbers[place] = math.nan
    _check(numbers, values, f"{column}", batch)
    return numbers


def _check(numbers: np.ndarray, values: list[Any], what: str, batch: pa.RecordBatch) -> None:
    wrong = np.flatnonzero(~((numbers >= 0) & (numbers <= MOST_WEIGHT)))
    if len(wrong):
        raise DataError(
            f"document {batch['id'][int(wrong[0])]}: {what} is {values[wrong[0]]!r}, expected a weight of 0 to "
            f"{MOST_WEIGHT}; correct the source, or name other columns in tokenizer.weights"
        )


def rounds_of(weights: np.ndarray | None) -> int:
    """Rounds in an epoch of documents with these weights."""
    return 1 if weights is None else max(1, math.ceil(weights.max(initial=0)))


def visited(weights: np.ndarray, numbers: np.ndarray, round: int, rounds: int, names: tuple) -> np.ndarray:
    """bool[n]: which of the documents `numbers` a round, counted from the first epoch on, visits.

    Args:
        weights: float32[n], of these documents.
        names: seed and domain.
    """
    epoch, turn = divmod(round, rounds)
    drawn = draws(numbers, 2, named_key("weight", *names, epoch))
    whole = np.floor(weights)
    count = (whole + (drawn[:, 0] < weights - whole)).astype(np.int64)
    place = turn + (drawn[:, 1] * rounds).astype(np.int64)
    # Of any `rounds` places in a row, `count` raise the quotient.
    return (place + 1) * count // rounds > place * count // rounds
