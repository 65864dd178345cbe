"""One form for every text: NFC, plain newlines, no control characters, no space at the ends."""

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from .documents import byte_lengths

# What NFC may change: marks (they compose, or stand in the wrong order), conjoining Hangul, the vowels of Kirat Rai,
# and the characters that have a canonical equivalent of their own. A test compares this with every code point.
_MAY_NOT_BE_NFC = (
    r"[\p{M}\x{1161}-\x{1175}\x{11A8}-\x{11C2}\x{16D63}-\x{16D6A}\x{0374}\x{037E}\x{0387}\x{0958}-\x{095F}"
    r"\x{09DC}\x{09DD}\x{09DF}\x{0A33}\x{0A36}\x{0A59}-\x{0A5B}\x{0A5E}\x{0B5C}\x{0B5D}\x{0F43}-\x{0F69}"
    r"\x{1F71}-\x{1FFD}\x{2000}\x{2001}\x{2126}\x{212A}\x{212B}\x{2329}\x{232A}\x{2ADC}"
    r"\x{F900}-\x{FAFF}\x{FB1D}-\x{FB4E}\x{1D15E}-\x{1D164}\x{1D1BB}-\x{1D1C0}\x{2F800}-\x{2FA1F}]"
)
_CONTROL = r"[\x00-\x08\x0B-\x1F\x7F-\x{9F}\x{FEFF}]"
_NEWLINES = r"\r\n?|[\x0B\x0C\x{85}]"


def normalise_pass(texts: pa.LargeStringArray) -> tuple[pa.LargeStringArray, np.ndarray, list[str | None]]:
    """The texts in one form; those of which nothing is left are to be dropped.

    Newlines of all kinds become LF, other control characters and byte-order marks go, letters are composed (NFC),
    blank lines before and white space after the text go.

    Returns: texts, keep bool[n], reasons (None where kept).
    """
    series = pl.Series(pl.from_arrow(texts))
    series = _where(series, _CONTROL, lambda part: part.str.replace_all(_NEWLINES, "\n").str.replace_all(_CONTROL, ""))
    series = _where(series, _MAY_NOT_BE_NFC, lambda part: part.str.normalize("NFC"))
    series = series.str.strip_chars_end().str.strip_chars_start("\n")
    normal = series.to_arrow().cast(pa.large_string())
    keep = byte_lengths(normal) > 0
    return normal, keep, [None if kept else "normalise:empty" for kept in keep]


def _where(series: pl.Series, pattern: str, change) -> pl.Series:
    """The series with `change` made to those texts that match; the others are not even copied."""
    matches = series.str.contains(pattern)
    if not matches.any():
        return series
    everything, parts = series.to_arrow().cast(pa.large_string()), change(series.filter(matches)).to_arrow()
    changed = pc.replace_with_mask(everything, matches.to_arrow(), parts)  # pyright: ignore[reportAttributeAccessIssue]
    return pl.Series(pl.from_arrow(changed))
