"""Pairs of texts that say the same in two languages, as documents that translate.

A source with `pairs` goes through three steps. Its records are read and what is no pair by itself is rejected, in all
threads (`check_pairs`); what depends on the pairs before is decided in order (`Packer`: the usual ratio of lengths,
repeated pairs, which pairs share a document, and its direction); and the documents are written, in all threads again.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import polars as pl
import pyarrow as pa

from ..workspace import RecipeError
from .dedup import content_hashes
from .documents import byte_lengths, filtered, with_column
from .engine import OrderedMap
from .language import MINIMUM_SCRIPT_SHARE, sample_prose, script_shares
from .language_settings import load_language
from .normalise import in_form
from .pair_settings import BETWEEN_SIDES, PairsConfig
from .records import Parsed, compile_template

EMPTY, IDENTICAL, NO_LETTERS, SCRIPT, LENGTH, REPEATED = (
    f"pair:{reason}"
    for reason in ("empty_side", "identical_sides", "no_letters", "wrong_script", "length_ratio", "repeated")
)
_PROBES = ("probe of the source", "probe of the target")
# Added to the bytes of both sides before they are compared: single words differ by much.
_SLACK_BYTES = 16
_MEASURED_BYTES = 40  # shorter sides do not tell the usual ratio
_REMEMBERED = 1 << 22  # pairs that a later one is compared with, about: 32 MB


@dataclass
class Pairs:
    """Pairs of one piece of a source: `parsed.documents` has a row for each, the sides joined as its text."""

    parsed: Parsed
    sizes: np.ndarray
    """UTF-8 bytes of both sides, int64[n, 2]."""
    seconds: float = 0.0

    def drop(self, reason: str, gone: np.ndarray) -> None:
        """Rejects rows, bool[n]."""
        if gone.any():
            self.parsed.reject(reason, int(self.sizes[gone].sum()), int(gone.sum()))
            self.parsed.documents = self.parsed.documents.filter(pa.array(~gone))
            self.sizes = self.sizes[~gone]


@dataclass(frozen=True)
class Packed:
    """Pairs, and the documents they make: those from `starts[i]` on, written from language `directions[i]` (0 or 1)."""

    pairs: Pairs
    starts: np.ndarray
    directions: np.ndarray


def check_template(config: PairsConfig) -> None:
    """Checks that the template writes both sides of a pair.

    Raises:
        RecipeError: it is not Jinja2, names something else, or leaves a side out.
    """
    names = [load_language(lang).name for lang in config.langs]
    try:
        text = _template(config.template)(
            source=_PROBES[0], target=_PROBES[1], source_language=names[0], target_language=names[1]
        )
    except RecipeError:
        raise
    except Exception as error:  # whatever a template does
        raise RecipeError(
            f"sources: pairs.template {config.template!r}: {error}; it has source, target, source_language and "
            "target_language"
        ) from None
    for side, probe in zip(("source", "target"), _PROBES, strict=True):
        if probe not in text:
            raise RecipeError(f"sources: pairs.template {config.template!r} leaves out {{{{ {side} }}}}")


@lru_cache(maxsize=16)
def _template(template: str) -> Callable[..., str]:
    return compile_template(template)


def check_pairs(piece: Callable[[], Parsed], config: PairsConfig) -> Pairs:
    """Reads a piece, and drops what is no pair: without text, the same twice, not in the scripts of its languages."""
    parsed = piece()
    joined = pl.Series(pl.from_arrow(parsed.documents.column("text")))
    split = joined.str.split_exact(BETWEEN_SIDES, 1).struct
    sides = [in_form(split.field(name).fill_null("")).str.strip_chars() for name in ("field_0", "field_1")]
    texts = [side.to_arrow().cast(pa.large_string()) for side in sides]
    joined = pl.select(pl.concat_str(*sides, separator=BETWEEN_SIDES)).to_series()
    parsed.documents = with_column(parsed.documents, "text", joined.to_arrow().cast(pa.large_string()))
    pairs = Pairs(parsed, np.stack([byte_lengths(text) for text in texts], axis=1))
    reasons = _reasons(sides, texts, config)
    for reason in (EMPTY, IDENTICAL, NO_LETTERS, SCRIPT):
        pairs.drop(reason, reasons == reason)
        reasons = reasons[reasons != reason]
    return pairs


def _reasons(sides: list[pl.Series], texts: list[pa.LargeStringArray], config: PairsConfig) -> np.ndarray:
    """The first reason that a pair is none, object[n], None where it is one."""
    empty = np.logical_or(*(byte_lengths(text) == 0 for text in texts))
    # Letters and digits in lower case: capitals and punctuation make no translation.
    folded = [side.str.to_lowercase().str.replace_all(r"[^\p{L}\p{M}\p{N}]+", "") for side in sides]
    letterless, foreign = np.zeros(len(empty), bool), np.zeros(len(empty), bool)
    for text, lang in zip(texts, config.langs, strict=True):
        scripts, _, _ = sample_prose(text)
        letterless |= scripts.sum(axis=1) == 0
        foreign |= script_shares(scripts, load_language(lang)) < MINIMUM_SCRIPT_SHARE
    failed = [empty, (folded[0] == folded[1]).to_numpy(), letterless, foreign]
    reasons = np.full(len(empty), None, object)
    for reason, gone in reversed(list(zip((EMPTY, IDENTICAL, NO_LETTERS, SCRIPT), failed, strict=True))):
        reasons[gone] = reason
    return reasons


class Packer:
    """Decides in the order of the source, so that the outcome does not depend on threads."""

    def __init__(self, config: PairsConfig) -> None:
        self.config = config
        self.overhead_bytes = len(_written(config, "", "", 0).encode()) + len(config.separator.encode())
        self.usual_ratio: float | None = None
        self.seen = np.zeros(_REMEMBERED, np.uint64)
        self.written_bytes = [0, 0]

    def pack(self, pairs: Pairs) -> Packed:
        """Drops pairs of implausible lengths and pairs that were there before; packs the others into documents."""
        pairs.drop(LENGTH, self._implausible(pairs.sizes))
        pairs.drop(REPEATED, self._repeated(content_hashes(pairs.parsed.documents.column("text"))))
        sizes = pairs.sizes.sum(axis=1) + self.overhead_bytes
        if not len(sizes):
            return Packed(pairs, np.zeros(0, np.int64), np.zeros(0, np.int64))
        starts = _starts(sizes, _changes(pairs.parsed.documents), self.config.document_bytes)
        directions = np.zeros(len(starts), np.int64)
        for number, size in enumerate(np.add.reduceat(sizes, starts).tolist()):
            directions[number] = self.written_bytes[1] < self.written_bytes[0]
            self.written_bytes[directions[number]] += size
        return Packed(pairs, starts, directions)

    def _implausible(self, sizes: np.ndarray) -> np.ndarray:
        """bool[n]; the usual ratio is the median of the first piece that has pairs."""
        if self.usual_ratio is None and len(sizes):
            telling = sizes[(sizes >= _MEASURED_BYTES).all(axis=1)]
            telling = telling if len(telling) else sizes
            self.usual_ratio = float(np.median(telling[:, 1] / telling[:, 0]))
        ratios = (sizes[:, 0] * (self.usual_ratio or 1.0) + _SLACK_BYTES) / (sizes[:, 1] + _SLACK_BYTES)
        return (ratios > self.config.length_ratio_max) | (ratios < 1 / self.config.length_ratio_max)

    def _repeated(self, hashes: np.ndarray) -> np.ndarray:
        """bool[n]: pairs that came before; of a great many, the oldest are forgotten."""
        repeated = np.zeros(len(hashes), bool)
        places = (hashes & np.uint64(_REMEMBERED - 1)).astype(np.int64)
        for row, (place, value) in enumerate(zip(places.tolist(), hashes, strict=True)):
            repeated[row] = self.seen[place] == value
            self.seen[place] = value
        return repeated


def _changes(documents: pa.RecordBatch) -> np.ndarray:
    """bool[n]: rows that differ from the one before in what a whole document must have in common."""
    changes = np.zeros(documents.num_rows, bool)
    changes[:1] = True
    for name in ("source", "url", "license", "lang"):
        column = pl.Series(pl.from_arrow(documents.column(name)))
        changes |= column.ne_missing(column.shift(1)).to_numpy()
    return changes


def _starts(sizes: np.ndarray, changes: np.ndarray, most_bytes: int) -> np.ndarray:
    """Rows at which documents begin: between changes as few as `most_bytes` allows, the last ones of equal size."""
    begins = np.flatnonzero(changes)
    starts: list[int] = []
    for begin, end in zip(begins.tolist(), [*begins[1:].tolist(), len(sizes)], strict=True):
        run = sizes[begin:end].tolist()
        left, filled, share = sum(run), 0, 0.0
        for row, size in enumerate(run, begin):
            if row == begin or filled >= share or filled + size > most_bytes:
                starts.append(row)
                share, filled = left / -(-left // most_bytes), 0
            filled += size
            left -= size
    return np.array(starts, np.int64)


def write_pairs(packed: Packed, config: PairsConfig) -> Parsed:
    """The documents: id, url and so on are those of the first pair; `meta` has the direction and how many pairs."""
    started = time.perf_counter()
    parsed = packed.pairs.parsed
    rows, starts = parsed.documents.column("text").to_pylist(), packed.starts.tolist()
    spans = zip(starts, [*starts, len(rows)][1:], packed.directions.tolist(), strict=True)
    written = [_try_to_write(config, rows[start:end], direction, parsed) for start, end, direction in spans]
    counts = [len(texts) for texts in written]
    documents = parsed.documents.take(pa.array(packed.starts))
    metas = _metas(documents, packed.directions, counts, config)
    texts = pa.array([config.separator.join(texts) for texts in written], pa.large_string())
    documents = with_column(with_column(documents, "text", texts), "meta", metas)
    parsed.documents = filtered(documents, np.array(counts, np.int64) > 0)
    parsed.seconds = packed.pairs.seconds + time.perf_counter() - started
    return parsed


def _metas(documents: pa.RecordBatch, directions: np.ndarray, counts: list[int], config: PairsConfig) -> pa.Array:
    metas = []
    for meta, direction, pairs in zip(documents.column("meta").to_pylist(), directions.tolist(), counts, strict=True):
        source, target = config.langs[direction], config.langs[1 - direction]
        own = {"direction": f"{source}-{target}", "pairs": pairs}
        metas.append(json.dumps(json.loads(meta) | own, ensure_ascii=False))
    return pa.array(metas, pa.string())


def _try_to_write(config: PairsConfig, rows: list[str], direction: int, parsed: Parsed) -> list[str]:
    """Pairs by the template; those that it fails at are counted and left out."""
    written = []
    for row in rows:
        first, second = row.split(BETWEEN_SIDES)
        try:
            written.append(_written(config, first, second, direction))
        except Exception as error:  # whatever a template does with a pair it was not written for
            parsed.hint = parsed.hint or f"the template says: {str(error)[:200]}"
            parsed.reject("template_failed", len(row.encode()))
    return written


def _written(config: PairsConfig, first: str, second: str, direction: int) -> str:
    """One pair by the template, from language `direction` to the other."""
    sides, names = (first, second), [load_language(lang).name for lang in config.langs]
    return _template(config.template)(
        source=sides[direction],
        target=sides[1 - direction],
        source_language=names[direction],
        target_language=names[1 - direction],
    )


def documents_of_pairs(pairs: Iterable[Pairs], config: PairsConfig, in_order: OrderedMap) -> Iterator[Parsed]:
    """Documents out of the checked pairs of a source, in order."""
    packer = Packer(config)
    return in_order(partial(write_pairs, config=config), map(packer.pack, pairs))
