import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.safety.material import row, write_rows

from aurora_m.safety import Prompt, load_prompts
from aurora_m.safety.prompts import parse_prompt, select_reviewed
from aurora_m.workspace import DataError


def complaint(tmp_path, *rows) -> str:
    """What is said of a file of a good row and these."""
    path = write_rows(tmp_path / "mine.jsonl", [row(0), *rows])
    with pytest.raises(DataError) as error:
        load_prompts([path])
    assert str(path) in str(error.value)
    return str(error.value)


def test_rows_come_in_the_order_of_the_files(tmp_path):
    first = write_rows(tmp_path / "a.jsonl", [row(5), row(3)])
    second = write_rows(tmp_path / "b.jsonl", [row(1), "", row(2)])
    assert [prompt.id for prompt in load_prompts([str(first), second])] == ["row-5", "row-3", "row-1", "row-2"]


def test_rows_are_chosen_by_kind_split_and_language(tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [row(number) for number in range(24)])
    chosen = load_prompts([path], kind="redteam", split="test", languages=["fi"])
    assert chosen
    assert {(prompt.kind, prompt.split, prompt.lang) for prompt in chosen} == {("redteam", "test", "fi")}
    assert load_prompts([path], languages=["vi"]) == []


def test_review_source_and_license_may_be_left_out(tmp_path):
    short = {key: value for key, value in row(0).items() if key not in ("review", "source", "license")}
    (prompt,) = load_prompts([write_rows(tmp_path / "rows.jsonl", [short])])
    assert prompt.review.status == "unreviewed" and prompt.license == "not stated"


@pytest.mark.parametrize("field", ["id", "kind", "concern", "lang", "instruction", "response", "split"])
def test_missing_field_is_named_with_its_line_and_all_fields(tmp_path, field):
    bad = row(1)
    del bad[field]
    said = complaint(tmp_path, bad)
    assert "line 2" in said and f"{field} is missing" in said and "concern, lang, instruction" in said


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"concern": "arson"}, "concern is 'arson', expected one of harm, cyber, cbrn, illegal, privacy, evasion"),
        ({"split": "dev"}, "split is 'dev', expected 'train' or 'test'"),
        ({"kind": "poem"}, "kind is 'poem', expected 'redteam' or 'lookalike'"),
        ({"lang": "xx"}, "lang is 'xx', expected one of en, fi, hi, ja, vi"),
        ({"review": {"status": "fine"}}, "review.status is 'fine', expected 'unreviewed', 'approved' or 'rejected'"),
        ({"response": "  "}, "response is '  ', expected some text"),
        ({"instruction": 7}, "instruction is 7, expected"),
        ({"instruction": "x\ud800"}, "not UTF-8"),
        ({"reponse": "typing"}, "reponse is no field of a row"),
        ({"id": "row-0"}, "id 'row-0' is taken by"),
        ({"instruction": "Forbidden  QUESTION 0", "split": "test"}, "give both rows the same split"),
    ],
)
def test_wrong_value_is_named_with_what_was_expected(tmp_path, changes, expected):
    bad = json.dumps(row(1, **changes))
    said = complaint(tmp_path, bad)
    assert "line 2" in said and expected in said


@pytest.mark.parametrize(("line", "expected"), [("{", "not JSON"), ("[1]", "a list"), ("[" * 100_000, "not JSON")])
def test_line_that_is_no_object_is_named(tmp_path, line, expected):
    said = complaint(tmp_path, line)
    assert "line 2" in said and expected in said and len(said) < 1000


def test_line_that_is_not_utf8_is_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"id": "\xff"}\n')
    with pytest.raises(DataError, match="line 1: not UTF-8"):
        load_prompts([path])


def test_endless_line_is_not_read_to_its_end(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"x" * (3 << 20))
    with pytest.raises(DataError, match="line 1: longer than"):
        load_prompts([path])


def test_missing_file_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="nowhere.jsonl cannot be read"):
        load_prompts([tmp_path / "nowhere.jsonl"])


@given(st.binary(max_size=200))
def test_any_line_is_a_row_or_a_data_error(line):
    try:
        assert isinstance(parse_prompt(line, "line 1"), Prompt)
    except DataError as error:
        assert str(error).startswith("line 1")


def test_rejected_rows_are_never_used():
    prompts = [
        Prompt.model_validate(row(n, review={"status": status}))
        for n, status in enumerate(["unreviewed", "approved", "rejected"])
    ]
    assert [prompt.id for prompt in select_reviewed(prompts, "any")] == ["row-0", "row-1"]
    assert [prompt.id for prompt in select_reviewed(prompts, "approved")] == ["row-1"]
