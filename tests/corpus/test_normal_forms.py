"""A text that is said to be in normal form C stays as it is, whoever makes the form."""

import sys
import unicodedata

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.corpus.test_normalise import SOMETIMES_ABNORMAL
from tokenizers import normalizers

from aurora_m.corpus import is_nfc

CODES = [*range(0xD800), *range(0xE000, sys.maxunicode + 1)]
MAKERS = {
    "python": lambda texts: [unicodedata.normalize("NFC", text) for text in texts],
    "polars": lambda texts: pl.Series(texts, dtype=pl.String).str.normalize("NFC").to_list(),
    "tokenizers": lambda texts: [normalizers.NFC().normalize_str(text) for text in texts],
}


def said(texts: list[str]) -> list[bool]:
    return is_nfc(pa.array(texts, pa.large_string())).tolist()


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("before", ["", "a", "\u0323", "\u1100", "\uac00"])
def test_no_code_point_that_is_said_to_stay_is_changed_by_any_maker(maker, before):
    """Alone and behind a letter, a mark and Hangul: editions of Unicode differ between the makers."""
    texts = [before + chr(code) for code in CODES]
    stay = [text for text, stays in zip(texts, said(texts), strict=True) if stays]
    assert len(stay) > 150_000
    joined = "\n".join(stay)  # a line feed composes with nothing and parts what stands around it
    assert MAKERS[maker]([joined]) == [joined]


@given(st.lists(st.text() | SOMETIMES_ABNORMAL))
def test_texts_that_are_said_to_be_in_form_are(texts):
    answers = said(texts)
    for make in MAKERS.values():
        assert all(made == text for made, text, stays in zip(make(texts), texts, answers, strict=True) if stays)


def test_what_pythons_edition_does_not_know_may_change_and_controls_do_not():
    unknown = [chr(code) for code in CODES if code < 0xF0000 and unicodedata.category(chr(code)) == "Cn"]
    assert not any(said([f"a{character}b" for character in unknown]))
    assert said(
        ["", "\x00\r\x85\ufeff", "Việt ngữ", "ज्यादा", "が", "한국어", "a\u0301b", "\u0958", "\uac00\u11a8"]
    ) == [
        *[True] * 6,
        *[False] * 3,
    ]


def test_a_slice_is_read_at_its_place():
    texts = pa.array(["e\u0301", "é", "e\u0301", "x"], pa.large_string())
    assert is_nfc(texts.slice(1, 2)).tolist() == [True, False]
