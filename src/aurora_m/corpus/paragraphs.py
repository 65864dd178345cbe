"""Mixed pages: paragraphs that are confidently in another language are found and removed from their documents.

A paragraph is what stands between blank lines; where one of its lines is long, every line by itself, as web pages come
out of extraction. The YAML header, fenced code and whatever is mostly not prose (links, numbers, code) are spared.
Neighbours too short to be judged alone are judged together; what is too short even then stays.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from ..workspace import kernel
from .code_lines import closes_fence, opens_fence, spans_are_code
from .identifier import UNKNOWN, LanguageIdentifier, load_identifier
from .kernels import body_begins, copy_prose
from .language_settings import LanguageSettings
from .passages import cut
from .segments import text_buffers
from .unicode_tables import SCRIPTS, unicode_tables

ENOUGH_BYTES = 80
"""Prose (UTF-8) below which a language cannot be told: a line of Latin letters, half a line of Devanagari or kana."""
LONG_LINE = 200
SAMPLE_BYTES = 400
PROSE_SHARE = 0.5
OTHER_SCRIPT_SHARE, FOREIGN_PROBABILITY, FOREIGN_BY_SCRIPT = 0.1, 0.8, 0.5
OWN_PROBABILITY, SPOKEN_PROBABILITY = 0.05, 0.3
LEFT_SHARE, LEFT_BYTES = 0.2, 100
_LABELS = 3


@dataclass
class ForeignParagraphs:
    """What was removed from documents: language -> [paragraphs, bytes]."""

    documents: int = 0
    languages: dict[str, list[int]] = field(default_factory=dict)

    def add(self, other: "ForeignParagraphs") -> None:
        """Adds the counts of another batch."""
        self.documents += other.documents
        for language, counts in other.languages.items():
            mine = self.languages.setdefault(language, [0, 0])
            mine[0], mine[1] = mine[0] + counts[0], mine[1] + counts[1]

    def describe(self) -> dict:
        """The part `foreign_paragraphs` of a domain in curation.json, most bytes first."""
        ordered = sorted(self.languages.items(), key=lambda item: (-item[1][1], item[0]))
        by_language = {name: {"paragraphs": paragraphs, "bytes": size} for name, (paragraphs, size) in ordered}
        return {"documents": self.documents, "languages": by_language}


@dataclass(frozen=True)
class Units:
    """Paragraphs of texts: those of text i are `offsets[i]` to `offsets[i + 1]`, in bytes of the whole buffer.

    Short neighbours have one number in `group`. Of groups: bytes of prose and of all, letters by script, samples.
    """

    offsets: np.ndarray
    start: np.ndarray
    end: np.ndarray
    group: np.ndarray
    prose_bytes: np.ndarray
    all_bytes: np.ndarray
    scripts: np.ndarray
    samples: np.ndarray
    sample_offsets: np.ndarray


@kernel
def find_units(data, offsets, long_line, unit_offsets, starts, ends):
    """Paragraphs of every text outside its YAML header and fenced code; `ends` are before the line break."""
    units = 0
    for text in range(len(offsets) - 1):
        unit_offsets[text] = units
        end = offsets[text + 1]
        i = body_begins(data, offsets[text], end)
        first = units  # of the paragraph that is open
        is_long = False
        run, mark = 0, np.uint8(0)  # of the fence that is open
        while i < end:
            line = i
            while i < end and data[i] != 10:
                i += 1
            at, stop = line, i
            while at < stop and (data[at] == 32 or data[at] == 9):
                at += 1
            while stop > at and (data[stop - 1] == 32 or data[stop - 1] == 9):
                stop -= 1
            was_fenced = run > 0
            if at < stop and was_fenced and closes_fence(data, at, stop, mark, run):
                run = 0
            elif at < stop and not was_fenced:
                run = opens_fence(data, at, stop)
                mark = data[at]
            if at == stop or was_fenced or run:
                if not is_long and units > first:  # one paragraph of all its lines
                    ends[first] = ends[units - 1]
                    units = first + 1
                first, is_long = units, False
            else:
                starts[units], ends[units] = line, i
                units += 1
                is_long |= i - line > long_line
            i += 1
        if not is_long and units > first:
            ends[first] = ends[units - 1]
            units = first + 1
    unit_offsets[len(offsets) - 1] = units


@kernel
def sample_units(
    data, unit_offsets, starts, ends, block_of, classes, enough, most, scratch, row,
    group, prose_bytes, all_bytes, scripts, samples, sample_offsets,
):  # fmt: skip
    """Groups of paragraphs, and a sample of the prose of each. Returns the number of groups."""
    groups = 0
    filled = np.int64(0)
    for text in range(len(unit_offsets) - 1):
        short = False
        for unit in range(unit_offsets[text], unit_offsets[text + 1]):
            row[:] = 0
            length = copy_prose(data, starts[unit], ends[unit], True, block_of, classes, scratch, row)
            if not (short and length < enough):
                groups += 1
                prose_bytes[groups - 1] = all_bytes[groups - 1] = 0
                scripts[groups - 1, :] = 0
                sample_offsets[groups - 1] = filled
            short = length < enough
            at = groups - 1
            group[unit] = at
            prose_bytes[at] += length
            all_bytes[at] += ends[unit] - starts[unit]
            for script in range(len(row)):
                scripts[at, script] += row[script]
            taken = min(length, most - (filled - sample_offsets[at]))
            while 0 < taken < length and scratch[taken] & 0xC0 == 0x80:
                taken -= 1
            if taken > 0 and filled > sample_offsets[at]:
                samples[filled] = 32
                filled += 1
            for byte in range(taken):
                samples[filled] = scratch[byte]
                filled += 1
    sample_offsets[groups] = filled
    return groups


def units_of(texts: pa.LargeStringArray) -> Units:
    """The paragraphs of texts, grouped, with samples of their prose."""
    data, offsets = text_buffers(texts)
    tables = unicode_tables()
    most = int(offsets[-1] - offsets[0]) // 2 + len(offsets)
    starts, ends = np.empty(most, np.int64), np.empty(most, np.int64)
    unit_offsets = np.zeros(len(offsets), np.int64)
    find_units(data, offsets, LONG_LINE, unit_offsets, starts, ends)
    n = int(unit_offsets[-1])
    starts, ends = starts[:n], ends[:n]
    group, prose_bytes, all_bytes = (np.zeros(n, np.int64) for _ in range(3))
    scripts = np.zeros((n, len(SCRIPTS)), np.int64)
    scratch = np.empty(2 * int((ends - starts).max(initial=0)) + 2, np.uint8)
    samples = np.empty(min(int((ends - starts).sum()) * 2, n * (SAMPLE_BYTES + 1)) + n + 1, np.uint8)
    sample_offsets = np.zeros(n + 1, np.int64)
    groups = sample_units(
        data, unit_offsets, starts, ends, tables.block_of, tables.classes, ENOUGH_BYTES, SAMPLE_BYTES, scratch,
        np.zeros(len(SCRIPTS), np.int64), group, prose_bytes, all_bytes, scripts, samples, sample_offsets,
    )  # fmt: skip
    return Units(
        unit_offsets, starts, ends, group, prose_bytes[:groups], all_bytes[:groups], scripts[:groups],
        samples, sample_offsets[: groups + 1],
    )  # fmt: skip


def foreign_units(
    data: np.ndarray, units: Units, settings: LanguageSettings, identifier: LanguageIdentifier
) -> np.ndarray:
    """For every paragraph the place of its language in `identifier.languages` where it is another one, else -1."""
    found = np.full(len(units.start), -1, np.int64)
    own_number = identifier.number(settings.code)
    if own_number == UNKNOWN or not len(found):
        return found
    own, other, languages = _probabilities(identifier, own_number, units.samples, units.sample_offsets)
    own_scripts = units.scripts[:, [SCRIPTS.index(script) for script in settings.scripts]].sum(axis=1)
    expected = own_scripts / np.maximum(units.scripts.sum(axis=1), 1)
    prose = (units.prose_bytes >= ENOUGH_BYTES) & (units.prose_bytes >= PROSE_SHARE * units.all_bytes)
    certain = np.where(expected < OTHER_SCRIPT_SHARE, other >= FOREIGN_BY_SCRIPT, other >= FOREIGN_PROBABILITY)
    foreign = (prose & certain & (own < OWN_PROBABILITY))[units.group]
    # A neighbour that is short may be in the page's own language, whatever the others are in.
    together = np.flatnonzero(foreign & (np.bincount(units.group)[units.group] > 1))
    foreign[together] = ~_speaks(data, units, together, identifier, own_number)
    rows = np.flatnonzero(foreign)
    foreign[rows] = ~spans_are_code(data, units.start[rows], units.end[rows], fewest=1)
    found[foreign] = languages[units.group[foreign]]
    return found


def _probabilities(
    identifier: LanguageIdentifier, own: int, samples: np.ndarray, offsets: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every sample: the probability of the language `own`, and of the likeliest other; the place of that one."""
    languages, probabilities = identifier.predict(samples, np.ascontiguousarray(offsets), _LABELS)
    mine = languages == own
    others = np.where(mine | (languages < 0), 0, probabilities)
    best = others.argmax(axis=1)[:, None]
    other = np.take_along_axis(others, best, axis=1)[:, 0]
    return (probabilities * mine).sum(axis=1), other, np.take_along_axis(languages, best, axis=1)[:, 0]


def _speaks(data: np.ndarray, units: Units, rows: np.ndarray, identifier: LanguageIdentifier, own: int) -> np.ndarray:
    """Which of the paragraphs named may by themselves be in the language `own`, bool."""
    parts = [data[units.start[row] : units.end[row]] for row in rows.tolist()]
    offsets = np.cumsum([0, *map(len, parts)]).astype(np.int64)
    joined = np.concatenate(parts) if parts else np.zeros(0, np.uint8)
    return _probabilities(identifier, own, joined, offsets)[0] >= SPOKEN_PROBABILITY


@dataclass(frozen=True)
class Removal:
    """What removing foreign paragraphs makes of n texts."""

    texts: pa.LargeStringArray
    changed: np.ndarray
    """bool[n]."""
    too_little: np.ndarray
    """bool[n]: less than a fifth of the paragraphs, or less than a hundred bytes of them, is left."""
    rows: np.ndarray
    """Of every paragraph removed the text it was of; its language and its bytes are in the next two."""
    languages: list[str]
    sizes: np.ndarray

    def count(self, kept: np.ndarray) -> ForeignParagraphs:
        """The counts of the texts that are kept, bool[n]."""
        counts = ForeignParagraphs(int((self.changed & kept).sum()))
        for row, language, size in zip(self.rows.tolist(), self.languages, self.sizes.tolist(), strict=True):
            if kept[row]:
                one = counts.languages.setdefault(language, [0, 0])
                one[0], one[1] = one[0] + 1, one[1] + size
        return counts


def remove_foreign(texts: pa.LargeStringArray, settings: LanguageSettings, model: Path | None = None) -> Removal:
    """Texts without the paragraphs that are confidently in another language than `settings.code`.

    Raises:
        DataError: the model is damaged, or its labels are no languages.
    """
    identifier = load_identifier(model)
    data, offsets = text_buffers(texts)
    units = units_of(texts)
    found = foreign_units(data, units, settings, identifier)
    n, gone = len(texts), found >= 0
    row, sizes = np.repeat(np.arange(n), np.diff(units.offsets)), units.end - units.start
    changed = np.bincount(row, gone, n) > 0
    all_bytes, left_bytes = np.bincount(row, sizes, n), np.bincount(row, sizes * ~gone, n)
    too_little = changed & (left_bytes < np.maximum(LEFT_SHARE * all_bytes, LEFT_BYTES))
    if gone.any():
        begins = offsets[:-1][row[gone]]
        texts, _ = cut(texts, row[gone], units.start[gone] - begins, units.end[gone] - begins)
    languages = [identifier.languages[number] for number in found[gone].tolist()]
    return Removal(texts, changed, too_little, row[gone], languages, sizes[gone])
