"""Every text gets one form, and text that has it is left alone."""

import sys
import unicodedata

import polars as pl
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from aurora_m.corpus import normalise
from aurora_m.corpus.normalise import normalise_pass


def normal(*texts: str) -> list[str]:
    return normalise_pass(pa.array(texts, pa.large_string()))[0].to_pylist()


def test_newlines_and_control_characters():
    assert normal("\ufeffa\r\nb\rc\x00\x0bd\x85e\x07") == ["a\nb\nc\nd\ne"]


def test_blank_ends_go_and_indentation_stays():
    assert normal("\n\n  def f():\n\tpass \n\n") == ["  def f():\n\tpass"]


def test_what_is_blank_is_dropped():
    texts, keep, reasons = normalise_pass(pa.array(["x", " \n\t ", "\x00"], pa.large_string()))
    assert keep.tolist() == [True, False, False]
    assert reasons == [None, "normalise:empty", "normalise:empty"]
    assert texts.type == pa.large_string()


@given(st.lists(st.text(alphabet=st.characters(exclude_categories=["Cc", "Cs"]), min_size=1)))
def test_text_becomes_nfc(texts):
    assert normal(*texts) == [unicodedata.normalize("NFC", normal(text)[0]) for text in texts]


@given(st.text())
def test_normalising_twice_changes_nothing(text):
    once = normal(text)
    assert normal(*once) == once


def test_no_code_point_that_nfc_changes_escapes_the_quick_look():
    characters = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    found = pl.Series(characters).str.contains(normalise._MAY_NOT_BE_NFC).to_list()
    looked_at = {character for character, match in zip(characters, found, strict=True) if match}
    assert not [c for c in characters if unicodedata.normalize("NFC", c) != c and c not in looked_at]
    # What composes with the character before it must be seen, too: the later parts of every decomposition.
    for character in characters:
        decomposition = unicodedata.decomposition(character)
        if decomposition and not decomposition.startswith("<"):
            assert all(chr(int(part, 16)) in looked_at for part in decomposition.split()[1:])
