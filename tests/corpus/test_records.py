"""Records become documents; what is no document is counted by reason and stops nothing."""

import json

import pytest

from aurora_m.corpus import CurateConfig, SourceConfig
from aurora_m.corpus.records import documents_from_lines, make_form
from aurora_m.corpus.streams import LineBlock, SourceFile
from aurora_m.workspace import RecipeError


def parse(*lines: bytes | str | dict, max_document_bytes: int = 10_000, lang: str | None = "xx", **settings):
    """Parses JSON lines as the given source would."""
    source = SourceConfig(kind="jsonl", path="folder/a.jsonl", **settings)
    form = make_form(source, "a", "d", lang, CurateConfig(max_document_bytes=max_document_bytes))
    encoded = [
        line if isinstance(line, bytes) else (line if isinstance(line, str) else json.dumps(line)).encode()
        for line in lines
    ]
    return documents_from_lines(LineBlock(SourceFile("folder/a.jsonl", 0), b"\n".join(encoded) + b"\n", 1), form)


def rejected(*lines, **settings) -> dict[str, int]:
    return {reason: count for reason, (count, _) in parse(*lines, **settings).rejected.items()}


def texts(*lines, **settings) -> list[str]:
    return parse(*lines, **settings).documents.column("text").to_pylist()


GOOD = {"text": "good"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("no json", "not_json"),
        ('{"text": "a"', "not_json"),
        ('{"text": "a"} {"text": "b"}', "not_json"),
        ('{"text": "a"}null', "not_json"),
        ("[" * 100_000, "not_json"),
        ("null", "not_an_object"),
        ('["text"]', "not_an_object"),
        ('"text"', "not_an_object"),
        ("{}", "no_text"),
        ('{"text": null}', "no_text"),
        ('{"text": ""}', "no_text"),
        ('{"text": 3}', "text_not_string"),
        ('{"text": true}', "text_not_string"),
        ('{"text": ["a"]}', "text_not_string"),
        ('{"text" :\t{"a": "b"}}', "text_not_string"),
        (b'{"text": "a\xff"}', "invalid_utf8"),
        (b'{"text": "\xed\xa0\x80"}', "invalid_utf8"),
        ('{"text": "a\\ud800"}', "invalid_unicode"),
        ('{"text": "\\uDC00\\uD800"}', "invalid_unicode"),
        ({"text": "a" * 10_001}, "document_too_long"),
    ],
)
def test_a_bad_line_is_counted_and_its_neighbours_stay(line, reason):
    parsed = parse(GOOD, line, {"text": "after"})
    assert {name: count for name, (count, _) in parsed.rejected.items()} == {reason: 1}
    assert parsed.documents.column("text").to_pylist() == ["good", "after"]
    assert parsed.documents.column("id").to_pylist() == ["a.jsonl#1", "a.jsonl#3"]


def test_blank_lines_are_no_records():
    parsed = parse(GOOD, "", "  \r", {"text": "b"})
    assert parsed.documents.num_rows == 2 and not parsed.rejected


def test_carriage_returns_and_nul_escapes_are_text():
    assert texts(b'{"text": "a\\u0000b"}\r', b'{"text": "c"}\r') == ["a\0b", "c"]


def test_surrogate_pairs_are_characters():
    assert texts('{"text": "a\\ud83d\\ude00"}') == ["a😀"]


def test_both_readers_make_the_same_documents():
    records = [
        {
            "text": 'ä\n"q" \\ 日本',
            "id": 7,
            "source": "s",
            "url": "u",
            "license": "L",
            "lang": "yy",
            "more": {"a": [1]},
        },
        {"text": "b", "id": None, "license": ["MIT", "X"], "code_lang": "python", "n": 1.5},
        {"text": "c", "id": "z", "source": ""},
    ]
    fast = parse(*records)
    slow = parse(*records, " ")  # a blank line sends the block to the slow reader
    assert fast.documents.to_pylist() == slow.documents.to_pylist()
    first, second, third = fast.documents.to_pylist()
    assert (first["id"], first["source"], first["license"], first["lang"]) == ("7", "s", "L", "yy")
    assert (second["id"], second["source"], second["lang"]) == ("a.jsonl#2", "a", "xx")
    assert json.loads(second["license"]) == ["MIT", "X"]
    assert json.loads(second["meta"]) == {"code_lang": "python"} and third["meta"] == "{}"


def test_fields_are_taken_from_where_the_recipe_says():
    (document,) = parse(
        {"content": "hello", "name": "n1", "stars": 5},
        fields={"text": "content", "id": "name", "meta.stars": "stars"},
        license="MIT",
    ).documents.to_pylist()
    assert (document["text"], document["id"], document["license"]) == ("hello", "n1", "MIT")
    assert json.loads(document["meta"]) == {"stars": "5"}


def test_an_unknown_column_is_refused():
    with pytest.raises(ValueError, match="fields has 'txt', expected one of text, id"):
        SourceConfig(kind="jsonl", path="a", fields={"txt": "content"})


def test_missing_text_names_the_fields_that_are_there():
    parsed = parse({"question": "q", "answer": "a"})
    assert parsed.hint == "the records have the fields 'question', 'answer'"


def test_labels_are_bounded():
    (document,) = parse({"text": "t", "url": "ü" * 5000}).documents.to_pylist()
    assert document["url"] == "ü" * 2000


def test_templates_make_parallel_pairs_and_choices():
    pair = "### Instruction:\nTranslate: {{ en }}\n\n### Response:\n{{ fi }}"
    assert texts({"en": "<b>yes</b>", "fi": "kyllä"}, template=pair) == [
        "### Instruction:\nTranslate: <b>yes</b>\n\n### Response:\nkyllä"
    ]
    choice = "{{ question }} {{ [choice0, choice1][label] }}"
    assert texts({"question": "q", "choice0": "a", "choice1": "b", "label": 1}, template=choice) == ["q b"]


def test_a_record_that_does_not_fit_its_template_is_counted_with_the_complaint():
    parsed = parse({"a": "x"}, {"b": "y"}, template="{{ b }}")
    assert parsed.documents.column("text").to_pylist() == ["y"]
    assert parsed.rejected["template_failed"][0] == 1
    assert parsed.hint == "the template says: 'b' is undefined"


@pytest.mark.parametrize(
    "template",
    ["{{ ''.__class__.__mro__ }}", "{{ a.append(1) }}", "{% for i in range(10**9) %}x{% endfor %}", "{{ 1 // 0 }}"],
)
def test_templates_run_in_a_sandbox(template):
    assert rejected({"a": [1]}, template=template) == {"template_failed": 1}


def test_where_selects_records():
    lines = [{"text": "a", "split": "train"}, {"text": "b", "split": "test"}, {"text": "c"}]
    assert texts(*lines, where='split == "train"') == ["a"]
    assert rejected(*lines, where='split == "train"') == {"not_selected": 2}


def test_what_a_sample_leaves_out_is_counted_with_its_bytes():
    lines = [{"id": str(number), "text": "é" * (1 + number % 3)} for number in range(400)]
    parsed = parse(*lines, "no json", sample=0.25)
    taken = parsed.documents.column("text").to_pylist()
    assert 60 < len(taken) < 140
    left_out = sum(len(line["text"].encode()) for line in lines) - sum(len(text.encode()) for text in taken)
    assert parsed.rejected == {"not_sampled": [400 - len(taken), left_out], "not_json": [1, 7]}
    assert parse(*lines, sample=1).rejected == {}
    assert texts(*lines[:50], sample=0.25) == taken[: len(texts(*lines[:50], sample=0.25))]


@pytest.mark.parametrize("settings", [{"template": "{{ a"}, {"where": "a =="}])
def test_what_is_not_jinja_is_a_mistake_of_the_recipe(settings):
    with pytest.raises(RecipeError, match="is not valid Jinja2"):
        parse(GOOD, **settings)


def test_lines_that_were_too_long_are_counted_with_their_bytes():
    form = make_form(SourceConfig(kind="jsonl", path="a"), "a", "d", None, CurateConfig())
    parsed = documents_from_lines(LineBlock(SourceFile("a", 0), b"", 2, [200, 300]), form)
    assert parsed.rejected == {"line_too_long": [2, 500]} and parsed.documents.num_rows == 0


@pytest.mark.parametrize("beside", [GOOD, "no json"])
def test_a_number_of_thousands_of_digits_in_another_field_does_no_harm(beside):
    assert "a" in texts('{"text": "a", "n": ' + "9" * 5000 + "}", beside)
