"""One form for every text: NFC, plain newlines, no control characters, no space at the ends."""

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from . import normal_kernels as kernels
from .documents import byte_lengths
from .normal_forms import unicode_forms
from .segments import text_buffers

_CONTROL = r"[\x00-\x08\x0B-\x1F\x7F-\x{9F}\x{FEFF}]"
_NEWLINES = r"\r\n?|[\x0B\x0C\x{85}]"


def normalise_pass(texts: pa.LargeStringArray) -> tuple[pa.LargeStringArray, np.ndarray, list[str | None]]:
    """The texts in one form; those of which nothing is left are to be dropped.

    Newlines of all kinds become LF, other control characters and byte-order marks go, letters are composed (NFC),
    blank lines before and white space after the text go. Texts that are in form already are not even copied.

    Returns: texts, keep bool[n], reasons (None where kept).
    """
    data, offsets = text_buffers(texts)
    abnormal, spans = np.zeros(len(texts), np.bool_), np.empty((len(texts), 2), np.int64)
    kernels.find_abnormal(data, offsets, *unicode_forms(), abnormal, spans)
    normal = _cut(texts, data, offsets, spans)
    if abnormal.any():
        mask = pa.array(abnormal)
        changed = in_form(pl.Series(pl.from_arrow(texts.filter(mask)))).to_arrow().cast(pa.large_string())
        normal = pc.replace_with_mask(normal, mask, changed)  # pyright: ignore[reportAttributeAccessIssue]
    keep = byte_lengths(normal) > 0
    return normal, keep, [None if kept else "normalise:empty" for kept in keep]


def in_form(texts: pl.Series) -> pl.Series:
    """Any texts in the form; slower than to look first whether they are."""
    texts = texts.str.replace_all(_NEWLINES, "\n").str.replace_all(_CONTROL, "").str.normalize("NFC")
    return texts.str.strip_chars_end().str.strip_chars_start("\n")


def _cut(texts: pa.LargeStringArray, data: np.ndarray, offsets: np.ndarray, spans: np.ndarray) -> pa.LargeStringArray:
    """Of every text its span of bytes; the texts themselves where that is all of them."""
    if np.array_equal(spans[:, 0], offsets[:-1]) and np.array_equal(spans[:, 1], offsets[1:]):
        return texts
    new_offsets = np.zeros(len(offsets), np.int64)
    np.cumsum(spans[:, 1] - spans[:, 0], out=new_offsets[1:])
    out = np.empty(new_offsets[-1], np.uint8)
    kernels.copy_spans(data, spans, out)
    return pa.LargeStringArray.from_buffers(len(texts), pa.py_buffer(new_offsets), pa.py_buffer(out))
