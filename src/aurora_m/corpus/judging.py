"""Thresholds laid on the scores of a finished partition: which of its documents go, and why.

Scores were made before and are columns, so that another threshold is only laid on them again: no document is read or
scored for it. Only the sample of what was dropped looks at texts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .funnel import DroppedSample, Funnel
from .model_scores import judge_scores
from .partitions import Partition
from .quality import judge_quality


@dataclass(frozen=True)
class Limits:
    """The thresholds of a domain, by signal and by the column of a model's score; None where a pass was not made."""

    quality: Mapping[str, float | None]
    models: Mapping[str, float] | None
    evaluation: bool
    """Whether documents with evaluation texts go."""


@dataclass(frozen=True)
class Judged:
    """A partition, and which of its documents stay: bool[documents]."""

    partition: Partition
    keep: np.ndarray
    funnel: Funnel
    dropped: DroppedSample


def judge(partition: Partition, limits: Limits, dropped_sample: int) -> Judged:
    """Judges all documents of a partition by their scores.

    Args:
        dropped_sample: how many of what each reason dropped are shown.
    """
    record = partition.record
    judged = Judged(partition, np.ones(partition.documents, bool), Funnel(), DroppedSample(dropped_sample))
    judged.funnel.add(record.funnel)
    judged.dropped.merge(record.dropped)
    quality, models = _by_scores(partition, limits)
    _drop(judged, "quality", quality)
    if limits.models is not None:
        _drop(judged, "model_scores", models)
    if limits.evaluation:
        contaminated: list[str | None] = [None] * partition.documents
        for row, source, overlap in record.overlaps:
            if judged.keep[row]:
                contaminated[row] = f"contaminated:{next(iter(overlap.sets))}"
                judged.funnel.count_overlap(overlap, source)
        _drop(judged, "decontaminate", contaminated)
    return judged


def _by_scores(partition: Partition, limits: Limits) -> tuple[list[str | None], list[str | None]]:
    """The reason of every document by the quality rules, and by the models' scores; None where it stays."""
    models = limits.models or {}
    signals = {name.rpartition("_")[0] for name, limit in limits.quality.items() if limit is not None}
    columns = [f"quality.{name}" for name in sorted(signals)]
    columns += sorted({name.rpartition("_")[0] for name in models})
    if not columns:
        nothing: list[str | None] = [None] * partition.documents
        return nothing, nothing
    quality, by_models = [], []
    for batch in partition.batches(columns):
        scores = {name: batch.column(name).to_numpy() for name in columns}
        own = {name.removeprefix("quality."): values for name, values in scores.items()}
        quality += judge_quality(own, limits.quality, batch.num_rows)[1]
        by_models += judge_scores(scores, models, batch.num_rows)[1]
    return quality, by_models


def _drop(judged: Judged, pass_name: str, reasons: Sequence[str | None]) -> None:
    """Counts what a pass made of the documents that were left, and takes out those with a reason."""
    rows = np.flatnonzero(judged.keep)
    left = [reasons[row] for row in rows.tolist()]
    stays = np.array([reason is None for reason in left], bool)
    judged.funnel.count_sizes(pass_name, judged.partition.record.lengths[rows], stays, left)
    judged.keep[rows] = stays
    gone = rows[~stays]
    named = [reason for reason in left if reason is not None]
    ranks = judged.partition.record.hashes[gone]
    # Only what the sample may take is read.
    chosen = judged.dropped.best(named, ranks)
    start = 0
    for batch in judged.partition.take(gone[chosen]):
        part = chosen[start : start + batch.num_rows]
        start += batch.num_rows
        judged.dropped.add(batch, pass_name, [named[row] for row in part], ranks[part])
