"""What the first reading left of a domain, and the second reading.

Duplicates out, the held-out part aside, parquet written.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from .config import HeldoutConfig
from .dedup import ABSENT, EXACT, KEPT, NEAR, REASONS, Duplicates
from .documents import DOCUMENT_SCHEMA, DocumentWriter, filtered, with_column
from .funnel import DroppedSample, Funnel
from .heldout import choose_heldout
from .judging import Judged
from .rehydration import upsampling_weights
from .removals import Removals
from .repeated_text import remove_repeats

_DROPPED_SCHEMA = pa.schema(
    [
        *DOCUMENT_SCHEMA,
        pa.field("drop_pass", pa.string(), nullable=False),
        pa.field("drop_reason", pa.string(), nullable=False),
        pa.field("duplicate_of", pa.string()),
    ]
)


class Scored:
    """The documents of a domain that were scored, partition after partition, with their counts.

    `first` is the number of the first of them in the index of duplicates, where those that were dropped for their
    scores have a number, too.
    """

    def __init__(self, judged: Sequence[Judged], first: int, dropped_sample: int) -> None:
        self.first = first
        self.partitions = partitions = [one.partition for one in judged]
        self.funnel = Funnel()
        self.dropped = DroppedSample(dropped_sample)
        for one in judged:
            self.funnel.add(one.funnel)
            self.dropped.merge(one.dropped)
        self._ends = np.cumsum([partition.documents for partition in partitions], dtype=np.int64)

    @property
    def documents(self) -> int:
        """How many there are."""
        return int(self._ends[-1])

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """All of them, in batches as they came; only the columns named, where some are."""
        for partition in self.partitions:
            yield from partition.batches(columns)

    def hashes(self) -> np.ndarray:
        """The content hashes of all of them, uint64[documents]."""
        return np.concatenate([partition.record.hashes for partition in self.partitions])

    def value_of(self, number: int, column: str) -> str:
        """What one of them, by its number in the index of duplicates, has in a column of text."""
        row = number - self.first
        place = int(np.searchsorted(self._ends, row, side="right"))
        return self.partitions[place].value_of(row - (int(self._ends[place - 1]) if place else 0), column)


def settle(
    scored: Scored,
    duplicates: Duplicates,
    removals: Removals,
    heldout: HeldoutConfig,
    weight_by_size: Mapping[int, float],
    folder: Path,
    id_of: Callable[[int], str],
    redacted: Callable[[pa.LargeStringArray], pa.LargeStringArray],
) -> dict[str, dict[str, int]]:
    """Writes a domain's train, heldout and dropped files to `folder`; returns documents and bytes of both splits.

    What was dropped early was never redacted, and its sample is there to be looked at, so `redacted` is applied to it.
    """
    folder.mkdir()
    numbers = slice(scored.first, scored.first + scored.documents)
    kinds, stays = duplicates.kind[numbers], duplicates.survivor[numbers]
    sizes = pa.array(duplicates.cluster_size[numbers], pa.int32())
    weights = pa.array(upsampling_weights(duplicates.cluster_size[numbers], weight_by_size), pa.float32())
    kept = duplicates.keep[numbers] & ~removals.emptied[numbers]
    held_out = choose_heldout(scored.hashes(), kept, heldout)
    schema = next(scored.batches()).schema.append(pa.field("cluster_size", pa.int32()))
    schema = schema.append(pa.field("upsampling_weight", pa.float32()))
    start = 0
    with DocumentWriter(folder, "train", schema) as train, DocumentWriter(folder, "heldout", schema) as aside:
        for batch in scored.batches():
            inside = np.flatnonzero(kinds[start : start + batch.num_rows] != ABSENT)
            rows, start = start + inside, start + batch.num_rows
            batch = batch.take(pa.array(inside)) if len(inside) < batch.num_rows else batch
            batch = with_column(batch, "cluster_size", sizes.take(pa.array(rows)))
            batch = with_column(batch, "upsampling_weight", weights.take(pa.array(rows)))
            _drop_duplicates(batch, kinds[rows], stays[rows], scored.funnel, scored.dropped)
            unique = kinds[rows] == KEPT
            batch, rows = filtered(batch, unique), rows[unique]
            batch, left = remove_repeats(batch, scored.first + rows, removals, scored.funnel, scored.dropped)
            scored.funnel.count_sources(batch, "kept")
            aside_rows = held_out[rows[left]]
            train.write(filtered(batch, ~aside_rows))
            aside.write(filtered(batch, aside_rows))
    sample = scored.dropped.frame()
    if not sample.is_empty():
        texts = redacted(sample["text"].to_arrow().cast(pa.large_string()))
        sample = sample.with_columns(pl.Series("text", texts))
    _write_dropped(sample, folder / "dropped.parquet", id_of)
    splits = {"train": train, "heldout": aside}
    return {name: {"documents": split.documents, "bytes": split.bytes} for name, split in splits.items()}


def _drop_duplicates(
    batch: pa.RecordBatch, kinds: np.ndarray, stays: np.ndarray, funnel: Funnel, sample: DroppedSample
) -> None:
    """Counts the exact duplicates of a batch, then the near ones, and offers them to the sample."""
    batch = with_column(batch, "_stays", pa.array(stays, pa.int64()))
    for pass_name, kind in (("exact_duplicates", EXACT), ("near_duplicates", NEAR)):
        keep, reason = kinds != kind, REASONS[kind]
        funnel.count_pass(pass_name, batch, keep, [reason] * len(keep))
        gone = batch.filter(pa.array(~keep))
        sample.add(gone, pass_name, [str(reason)] * gone.num_rows, gone.column("content_hash").to_numpy())
        if kind == NEAR:
            funnel.count_sources(gone, "near_duplicates")
        batch, kinds = filtered(batch, keep), kinds[keep]


def _write_dropped(sample: pl.DataFrame, path: Path, id_of: Callable[[int], str]) -> None:
    """Writes the sample of dropped documents, with what the passes knew of them."""
    if sample.is_empty():
        pq.write_table(_DROPPED_SCHEMA.empty_table(), path)
        return
    if "_stays" in sample.columns:
        names = [None if number is None else id_of(number) for number in sample["_stays"].to_list()]
        sample = sample.with_columns(pl.Series("duplicate_of", names, pl.String))
    else:
        sample = sample.with_columns(pl.lit(None, pl.String).alias("duplicate_of"))
    more = [name for name in sample.columns if name not in _DROPPED_SCHEMA.names and not name.startswith("_")]
    table = sample.select(*_DROPPED_SCHEMA.names, *more).to_arrow()
    schema = pa.schema([*_DROPPED_SCHEMA, *(table.schema.field(name) for name in more)])
    pq.write_table(table.cast(schema), path, compression="zstd")
