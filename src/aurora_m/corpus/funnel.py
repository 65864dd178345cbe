"""What became of the documents: counts by pass, reason, source and licence, and a sample of what was dropped."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from .boilerplate import Removed
from .decontaminate import Overlap, Overlaps
from .documents import byte_lengths, text_bytes, with_column
from .histograms import Histograms
from .paragraphs import ForeignParagraphs
from .removals import RepeatedText

PASSES = (
    "read",
    "license",
    "url",
    "normalise",
    "boilerplate",
    "language",
    "code_language",
    "redact",
    "quality",
    "model_scores",
    "decontaminate",
    "exact_duplicates",
    "near_duplicates",
    "repeated_text",
)
# Left out of the counts where nothing went through them.
_OPTIONAL_PASSES = frozenset(
    ["license", "url", "boilerplate", "code_language", "model_scores", "decontaminate", "repeated_text"]
)

_MOST_NAMES = (
    1000  # of sources, licences or reasons in the counts: a record's own `source` may be different for every record
)
_SAMPLE_CHARACTERS = 4_000
_REST = "(others)"
_SOURCE_COUNTS = ("documents_in", "bytes_in", "documents_near_duplicates", "documents_kept", "bytes_kept")


@dataclass
class PassCount:
    """One pass over one domain. `seconds` are summed over threads."""

    documents_in: int = 0
    bytes_in: int = 0
    documents_out: int = 0
    bytes_out: int = 0
    dropped: dict[str, list[int]] = field(default_factory=dict)  # reason -> [documents, bytes]
    seconds: float = 0.0

    def drop(self, reason: str, documents: int, size: int) -> None:
        """Counts documents of `size` bytes in all as dropped."""
        count = self.dropped.setdefault(_bounded(self.dropped, reason), [0, 0])
        count[0] += documents
        count[1] += size


@dataclass
class Funnel:
    """The counts of a domain, or of one batch of it; batches' funnels are added up."""

    passes: dict[str, PassCount] = field(default_factory=lambda: {name: PassCount() for name in PASSES})
    sources: dict[str, Counter] = field(default_factory=dict)  # name -> documents_in, bytes_in, documents_kept, ...
    licenses: dict[str, Counter] = field(default_factory=dict)  # source -> licence -> documents kept
    redactions: Counter = field(default_factory=Counter)
    overlaps: Overlaps = field(default_factory=Overlaps)
    boilerplate: Removed = field(default_factory=Removed)
    repeated_text: RepeatedText = field(default_factory=RepeatedText)
    scores: Histograms = field(default_factory=Histograms)
    languages: dict[str, Counter] = field(default_factory=dict)  # expected -> detected -> documents
    foreign_paragraphs: ForeignParagraphs = field(default_factory=ForeignParagraphs)
    code_languages: Counter = field(default_factory=Counter)

    def count_pass(
        self,
        name: str,
        documents: pa.RecordBatch,
        keep: np.ndarray,
        reasons: Sequence[str | None] = (),
        seconds: float = 0.0,
    ) -> None:
        """Counts one pass over a batch: keep bool[n], and the reasons (n) where some are not kept."""
        self.count_sizes(name, byte_lengths(documents.column("text")), keep, reasons, seconds)

    def count_sizes(
        self,
        name: str,
        sizes: np.ndarray,
        keep: np.ndarray,
        reasons: Sequence[str | None] = (),
        seconds: float = 0.0,
    ) -> None:
        """As `count_pass`, of documents of so many bytes each, int64[n]."""
        count = self.passes[name]
        count.documents_in += len(sizes)
        count.bytes_in += int(sizes.sum())
        count.documents_out += int(keep.sum())
        count.bytes_out += int(sizes[keep].sum())
        count.seconds += seconds
        for row in np.flatnonzero(~keep).tolist():
            count.drop(reasons[row] or name, 1, int(sizes[row]))

    def count_change(self, name: str, before: pa.RecordBatch, after: pa.RecordBatch, seconds: float) -> None:
        """Counts a pass that changes texts and drops none."""
        count = self.passes[name]
        count.documents_in += before.num_rows
        count.documents_out += after.num_rows
        count.bytes_in += text_bytes(before)
        count.bytes_out += text_bytes(after)
        count.seconds += seconds

    def count_sources(self, documents: pa.RecordBatch, stage: str) -> None:
        """Adds a batch to the sources' counts, `stage` being `in`, `near_duplicates` or `kept`.

        Licences are those of kept documents.
        """
        if not documents.num_rows:
            return
        sizes = byte_lengths(documents.column("text"))
        names, name_of = _numbered(documents.column("source"))
        count, size = np.bincount(name_of), np.bincount(name_of, sizes)
        # In the order in which they first come, which decides which of too many get a name.
        for number, name in enumerate(names):
            counts = self.sources.setdefault(_bounded(self.sources, name), Counter())
            counts[f"documents_{stage}"] += int(count[number])
            counts[f"bytes_{stage}"] += int(size[number])
        if stage == "kept":
            licenses, license_of = _numbered(documents.column("license").fill_null("unknown"))
            pairs, first, count = np.unique(name_of * len(licenses) + license_of, return_index=True, return_counts=True)
            for at in np.argsort(first).tolist():
                name, license_name = (int(number) for number in divmod(pairs[at], len(licenses)))
                by_license = self.licenses.setdefault(_bounded(self.sources, names[name]), Counter())
                by_license[_bounded(by_license, licenses[license_name] or "unknown")] += int(count[at])

    def count_overlap(self, overlap: Overlap, source: str) -> None:
        """Counts a contaminated document by evaluation set and source."""
        self.overlaps.count(overlap, _bounded(self.sources, source))

    def add(self, other: "Funnel") -> None:
        """Adds the counts of another funnel of the same domain."""
        for name, theirs in other.passes.items():
            ours = self.passes[name]
            for key in ("documents_in", "bytes_in", "documents_out", "bytes_out", "seconds"):
                setattr(ours, key, getattr(ours, key) + getattr(theirs, key))
            for reason, (documents, size) in theirs.dropped.items():
                ours.drop(reason, documents, size)
        for name, counts in other.sources.items():
            self.sources.setdefault(_bounded(self.sources, name), Counter()).update(counts)
        for name, counts in other.licenses.items():
            self.licenses.setdefault(_bounded(self.licenses, name), Counter()).update(counts)
        self.redactions.update(other.redactions)
        self.overlaps.add(other.overlaps)
        self.boilerplate.add(other.boilerplate)
        self.repeated_text.add(other.repeated_text)
        self.scores.add(other.scores)
        for expected, detected in other.languages.items():
            self.languages.setdefault(expected, Counter()).update(detected)
        self.foreign_paragraphs.add(other.foreign_paragraphs)
        self.code_languages.update(other.code_languages)

    def leading_reason(self) -> str | None:
        """The reason most documents were dropped for, with its count; None where none was."""
        reasons = [(n, reason) for count in self.passes.values() for reason, (n, _) in count.dropped.items()]
        if not reasons:
            return None
        most, reason = max(reasons, key=lambda pair: pair[0])
        return f"{reason} ({most} of {sum(n for n, _ in reasons)} dropped)"

    def describe(self) -> dict[str, Any]:
        """The domain's part of curation.json, but for the split."""
        return {
            "sources": {
                name: {
                    **{key: counts[key] for key in _SOURCE_COUNTS},
                    "licenses": dict(sorted(self.licenses.get(name, {}).items())),
                }
                for name, counts in sorted(self.sources.items())
            },
            "passes": [
                _describe_pass(name, count)
                for name, count in self.passes.items()
                if count.documents_in or name not in _OPTIONAL_PASSES
            ],
            "redactions": dict(sorted(self.redactions.items())),
            "boilerplate": self.boilerplate.describe(),
            "repeated_text": self.repeated_text.describe(),
            "scores": self.scores.describe(),
            "languages": {name: _by_count(detected) for name, detected in sorted(self.languages.items())},
            "foreign_paragraphs": self.foreign_paragraphs.describe(),
            "code_languages": _by_count(self.code_languages),
            "rejected_records": {
                reason: documents for reason, (documents, _) in sorted(self.passes["read"].dropped.items())
            },
        }


def _describe_pass(name: str, count: PassCount) -> dict[str, Any]:
    dropped = sorted(count.dropped.items(), key=lambda item: (-item[1][0], item[0]))
    return {
        "name": name,
        "documents_in": count.documents_in,
        "bytes_in": count.bytes_in,
        "documents_out": count.documents_out,
        "bytes_out": count.bytes_out,
        "dropped": {reason: {"documents": documents, "bytes": size} for reason, (documents, size) in dropped},
        "seconds": round(count.seconds, 3),
    }


def _by_count(counts: Counter) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _numbered(column: pa.Array) -> tuple[list[str], np.ndarray]:
    """The different values of a column in the order in which they first come, and every row's among them, int64[n]."""
    encoded = column.dictionary_encode()
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)


def _bounded(known: dict[str, Any], name: str) -> str:
    return name if name in known or len(known) < _MOST_NAMES else _REST


class DroppedSample:
    """Up to `most` dropped documents of every pass and reason: those with the smallest rank, so a fair sample.

    Long texts are kept by their beginning only.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._frames: list[pl.DataFrame] = []
        self._rows = 0

    def add(self, dropped: pa.RecordBatch, pass_name: str, reasons: list[str], rank: np.ndarray) -> None:
        """Offers dropped documents with their reasons; rank uint64[n], best a hash of the content."""
        if not self.most or not dropped.num_rows:
            return
        rows = self.best(reasons, rank)
        dropped, reasons, rank = dropped.take(pa.array(rows)), [reasons[row] for row in rows], rank[rows]
        # Arrow copies the beginnings; polars would keep views of them, and with them the texts they are of.
        heads = pc.utf8_slice_codeunits(dropped.column("text"), 0, _SAMPLE_CHARACTERS)  # pyright: ignore[reportAttributeAccessIssue]
        dropped = with_column(dropped, "text", heads)
        frame = pl.DataFrame(pl.from_arrow(pa.Table.from_batches([dropped]))).with_columns(
            pl.lit(pass_name).alias("drop_pass"),
            pl.Series("drop_reason", reasons, pl.String),
            pl.Series("_rank", rank, pl.UInt64),
        )
        self._gather([frame])

    def best(self, reasons: list[str], rank: np.ndarray) -> list[int]:
        """Rows of a batch that may come into the sample, ascending: the first of every reason by their rank."""
        taken: Counter[str] = Counter()
        rows = []
        for row in np.argsort(rank, kind="stable").tolist():
            if taken[reasons[row]] < self.most:
                taken[reasons[row]] += 1
                rows.append(row)
        return sorted(rows)

    def merge(self, other: "DroppedSample") -> None:
        """Takes over what another sample holds."""
        self._gather(other._frames)

    def _gather(self, frames: list[pl.DataFrame]) -> None:
        self._frames += frames
        self._rows += sum(len(frame) for frame in frames)
        if self._rows > 50 * self.most:
            self._frames = [self.frame()]
            self._rows = len(self._frames[0])

    def frame(self) -> pl.DataFrame:
        """The sample, by pass and reason; columns of documents and what the passes had added, and `drop_reason`."""
        if not self._frames:
            return pl.DataFrame()
        return (
            pl.concat(self._frames, how="diagonal")
            .sort("drop_pass", "drop_reason", "_rank", maintain_order=True)
            .group_by("drop_pass", "drop_reason", maintain_order=True)
            .head(self.most)
        )
