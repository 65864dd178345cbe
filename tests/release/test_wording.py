"""Figures in words, and foreign text and secrets kept in check."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from aurora_m.release import ReleaseConfig, duration, percent, plain, size, without_secrets


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.42, "0.4 s"), (42, "42 s"), (252, "4 min 12 s"), (11_100, "3 h 05 min"), (4_150_000, "48 d 0 h"), (None, "–")],
)
def test_durations(seconds, words):
    assert duration(seconds) == words


def test_percentages_and_sizes():
    assert [percent(x, signed=True) for x in (-0.312, 0.02, 0.0, -0.0001)] == ["−31.2%", "+2.0%", "0.0%", "0.0%"]
    assert [size(x) for x in (812, 31_600_000, 1.2e9)] == ["812 B", "31.6 MB", "1.2 GB"]


@given(st.text(max_size=500))
def test_plain_text_is_short_and_has_no_controls(text):
    shown = plain(text, 100)
    assert len(shown) <= 101
    assert not set(shown) & set("\x00\x07\x1b\u202e\u2066\ufeff\x7f\x85")


def test_secrets_go_and_the_rest_stays():
    recipe = {
        "a": [{"path": "https://host/x.parquet?X-Amz-Signature=abc"}, {"path": "s3://key:secret@bucket/x"}],
        "hf_token": "hf_abc",
        "tokens": "377B",
        "secret_key": "s",
        "tokens_per_step": 5,
        "home": str(Path.home() / "data"),
    }
    assert without_secrets(recipe) == {
        "a": [{"path": "https://host/x.parquet?(hidden)"}, {"path": "s3://bucket/x"}],
        "hf_token": "(hidden)",
        "tokens": "377B",
        "secret_key": "(hidden)",
        "tokens_per_step": 5,
        "home": "~/data",
    }


@pytest.mark.parametrize("name", ["", "   ", "a\nb", "x" * 201, "a\u202eb"])
def test_a_name_that_cannot_stand_on_a_card_is_refused(name):
    with pytest.raises(ValidationError, match="model card"):
        ReleaseConfig(name=name)
