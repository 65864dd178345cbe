"""Is a document in the language it is said to be in? Scripts first, then a language identifier on samples of its prose.

Settings of languages are read here too.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa

from ..workspace import AuroraError
from .identifier import UNKNOWN, LanguageIdentifier, load_identifier
from .language_settings import LanguageSettings, available_languages, load_language

__all__ = ["LanguageSettings", "available_languages", "language_pass", "load_language"]

SAMPLES = 4
SAMPLE_BYTES = 240
ENOUGH_LETTERS = 30
"""Prose with fewer letters is judged with the code around it, and by its script alone where even that is too short."""
MINIMUM_SCRIPT_SHARE = 0.1
OTHER_SPELLING_SHARE = 0.2
"""Of the words of a text, those from the list of a spelling. On the real corpora: a third to a half in text whose marks
were taken off, below a seventh in every document of other languages."""
_LABELS_PER_SAMPLE = 3
_KEPT, _MIXED, _OTHER, _UNKNOWN = range(4)


def language_pass(
    texts: pa.LargeStringArray, lang: str, model: Path | None = None
) -> tuple[np.ndarray, list[str | None], np.ndarray]:
    """Which texts are in the language they should be in, by the fastText file `model` (None: the default one).

    Returns:
        keep (bool[n]); reasons (n, None where kept): `language:<detected>`, `language:mixed` where parts of the text
        are in it, `language:<spelling>` where it is in it but written in another spelling of the language's file
        (romanised, without diacritics: what identifiers do not know), `language:unknown`; scores (float32[n]), the
        identifier's mean probability of `lang` over the samples, or for short texts the share of letters in its
        scripts.

    Raises:
        DataError: the model is damaged, or its labels are no languages.
    """
    identifier = load_identifier(model)
    settings = load_language(lang)
    scripts, samples, sample_offsets = sample_prose(texts)
    expected = script_shares(scripts, settings)
    own, other, share = _language_shares(identifier, samples, sample_offsets, lang)
    by_script = (scripts.sum(axis=1) < ENOUGH_LETTERS) | (identifier.number(lang) == UNKNOWN)
    verdicts = np.where(by_script, np.where(expected >= 0.5, _KEPT, _UNKNOWN), _judge(expected, own, share))
    reasons: list[str | None] = [None] * len(verdicts)
    dropped = np.flatnonzero(verdicts != _KEPT)
    spellings = _other_spellings(samples, sample_offsets, dropped, settings)
    for row, spelling in zip(dropped.tolist(), spellings, strict=True):
        detected = {_MIXED: "mixed", _UNKNOWN: "unknown"}.get(int(verdicts[row]))
        reasons[row] = f"language:{spelling or detected or identifier.languages[other[row]]}"
    return verdicts == _KEPT, reasons, np.where(by_script, expected, own).astype(np.float32)


def sample_prose(texts: pa.LargeStringArray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Letters by script (int64, n x scripts); SAMPLES samples of every text: bytes and offsets (n * SAMPLES + 1)."""
    from . import kernels
    from .segments import text_buffers
    from .unicode_tables import SCRIPTS, unicode_tables

    data, offsets = text_buffers(texts)
    n = len(offsets) - 1
    tables = unicode_tables()
    longest = int(np.diff(offsets).max(initial=0))
    scripts = np.zeros((n, len(SCRIPTS)), np.int64)
    samples = np.empty(n * SAMPLES * (SAMPLE_BYTES + 3), np.uint8)
    sample_offsets = np.zeros(n * SAMPLES + 1, np.int64)
    scratch = np.empty(2 * longest + 1, np.uint8)
    kernels.sample_prose(
        data, offsets, tables.block_of, tables.classes, ENOUGH_LETTERS, scratch, scripts, SAMPLES, SAMPLE_BYTES,
        samples, sample_offsets,
    )  # fmt: skip
    return scripts, samples, sample_offsets


def script_shares(scripts: np.ndarray, settings: LanguageSettings) -> np.ndarray:
    """Of letters by script (int64, n x scripts) the share in a language's scripts, float32[n]; 0 without letters."""
    from .unicode_tables import SCRIPTS

    unknown = [script for script in settings.scripts if script not in SCRIPTS]
    if unknown:
        raise AuroraError(f"script {unknown[0]!r} of language {settings.code} is none of {', '.join(SCRIPTS[1:])}")
    own = scripts[:, [SCRIPTS.index(script) for script in settings.scripts]].sum(axis=1)
    return (own / np.maximum(scripts.sum(axis=1), 1)).astype(np.float32)


def _language_shares(
    identifier: LanguageIdentifier, samples: np.ndarray, sample_offsets: np.ndarray, lang: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean probabilities over the samples of every text, float64[n].

    Returns:
        that of `lang`; the likeliest other language, as its place in `identifier.languages`; that one's.
    """
    n = (len(sample_offsets) - 1) // SAMPLES
    languages, probabilities = identifier.predict(samples, sample_offsets, _LABELS_PER_SAMPLE)
    languages = languages.reshape(n, SAMPLES * _LABELS_PER_SAMPLE)
    filled = np.diff(sample_offsets).reshape(n, SAMPLES) > 0
    weights = filled / np.maximum(filled.sum(axis=1, keepdims=True), 1)
    shares = probabilities.reshape(languages.shape) * weights.repeat(_LABELS_PER_SAMPLE, axis=1)
    own = languages == identifier.number(lang)
    # At each place what the language named there has in all, -1 where it is the text's own or none.
    totals = np.stack([(shares * (languages == column[:, None])).sum(axis=1) for column in languages.T], axis=1)
    totals[own | (languages < 0)] = -1
    best = totals.argmax(axis=1)[:, None]
    share = np.maximum(np.take_along_axis(totals, best, axis=1)[:, 0], 0)
    return (shares * own).sum(axis=1), np.take_along_axis(languages, best, axis=1)[:, 0], share


def _judge(expected: np.ndarray, own: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Verdicts on texts of which so much is in the expected scripts, their own and another language."""
    return np.select(
        [
            # Romanised text, say: whatever the identifier thinks of it, it is not written as the language is.
            (expected < MINIMUM_SCRIPT_SHARE) & (other > np.maximum(own, 0.3)),
            expected < MINIMUM_SCRIPT_SHARE,
            (own >= 0.5) | ((own >= 0.3) & (other < 0.2)),
            (own >= 0.2) & (other >= 0.2),
            other >= 0.3,
        ],
        [_OTHER, _UNKNOWN, _KEPT, _MIXED, _OTHER],
        _UNKNOWN,
    )


def _other_spellings(
    samples: np.ndarray, sample_offsets: np.ndarray, rows: np.ndarray, settings: LanguageSettings
) -> list[str | None]:
    """For every text named: the spelling of the language file whose words its samples are full of, if any."""
    from .phrases import count_phrases
    from .segments import segment

    found: list[str | None] = [None] * len(rows)
    if len(rows) == 0 or not settings.other_spellings:
        return found
    # The samples of a text lie one after another: read as one text.
    bounds = np.ascontiguousarray(sample_offsets[::SAMPLES])
    texts = pa.LargeStringArray.from_buffers(len(bounds) - 1, pa.py_buffer(bounds), pa.py_buffer(samples))
    words = segment(texts.take(pa.array(rows)))
    for name, listed in settings.other_spellings.items():
        share = count_phrases(words, tuple(listed))[:, 0] / np.maximum(words.count("words"), 1)
        for position in np.flatnonzero(share >= OTHER_SPELLING_SHARE).tolist():
            found[position] = name
    return found
