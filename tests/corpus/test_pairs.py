"""Pairs of texts in two languages become documents that translate, and what is no pair is dropped and counted."""

import io
import json
import unicodedata

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.corpus.test_sources import documents, read, rejected, write_files, write_lines
from tests.heard import Heard

from aurora_m.corpus import CurateConfig, DomainConfig, SourceConfig, curate, streams
from aurora_m.corpus.engine import ordered_threads
from aurora_m.corpus.pairs import _starts
from aurora_m.corpus.sources import open_source
from aurora_m.workspace import RecipeError

WORDS = {
    "en": [
        "the",
        "winter",
        "road",
        "goes",
        "down",
        "to",
        "a",
        "frozen",
        "lake",
        "where",
        "old",
        "boats",
        "lie",
        "under",
        "snow",
        "and",
        "nobody",
        "waits",
        "for",
        "spring",
    ],
    "fi": [
        "talvinen",
        "tie",
        "laskee",
        "jäätyneelle",
        "järvelle",
        "missä",
        "vanhat",
        "veneet",
        "makaavat",
        "lumen",
        "alla",
        "eikä",
        "kukaan",
        "odota",
        "kevättä",
    ],
    "hi": [
        "सर्दी",
        "की",
        "सड़क",
        "जमी",
        "हुई",
        "झील",
        "तक",
        "जाती",
        "है",
        "जहाँ",
        "पुरानी",
        "नावें",
        "बर्फ",
        "के",
        "नीचे",
        "पड़ी",
        "हैं",
    ],
}


def sentence(lang: str, number: int, words: int = 12) -> str:
    """Another one for every number."""
    random = np.random.default_rng(number)
    return " ".join([*random.choice(WORDS[lang], words), str(number)])


def made(count: int, langs: tuple[str, str] = ("en", "fi"), **more) -> list[dict]:
    """As many pairs."""
    return [{"id": f"p{i}", **{lang: sentence(lang, i) for lang in langs}, **more} for i in range(count)]


def read_pairs(path, langs=("en", "fi"), kind: str = "jsonl", **settings):
    pairs = {"langs": langs, **settings.pop("pairs", {})}
    return read(kind, path, max_document_bytes=100_000, pairs=pairs, **settings)


def parts(document: dict) -> list[tuple[str, ...]]:
    """The pairs of a document by the usual template: (label, text) of both lines."""
    return [
        tuple(part for line in pair.split("\n") for part in line.split(": ", 1))
        for pair in document["text"].split("\n\n")
    ]


def test_every_pair_is_written_once_in_its_order_and_both_ways_in_balance(tmp_path):
    rows = made(1000)
    found = documents(read_pairs(write_lines(tmp_path / "a.jsonl", *rows), pairs={"document_bytes": 2000}))
    written, sizes = [], {"en-fi": 0, "fi-en": 0}
    for document in found:
        meta, pairs = json.loads(document["meta"]), parts(document)
        size = len(document["text"].encode())
        assert meta["pairs"] == len(pairs) and 1000 < size <= 2000
        sizes[meta["direction"]] += size
        order = ("English", "Finnish") if meta["direction"] == "en-fi" else ("Finnish", "English")
        assert {(first, second) for first, _, second, _ in pairs} == {order}
        written += [{first: a, second: b} for first, a, second, b in pairs]
    assert written == [{"English": row["en"], "Finnish": row["fi"]} for row in rows]
    assert abs(sizes["en-fi"] - sizes["fi-en"]) <= 2000
    assert found[0]["id"] == "p0" and found[1]["id"] == f"p{json.loads(found[0]['meta'])['pairs']}"


def test_what_is_no_pair_is_dropped_and_counted(tmp_path):
    wrong = {
        "pair:empty_side": [{"en": "Nothing here", "fi": " \n"}, {"en": "Only one"}, {"en": "A number", "fi": 7}],
        "pair:identical_sides": [{"en": "Open Settings now.", "fi": "**open settings** now"}],
        "pair:no_letters": [{"en": "9 AM to 5 PM", "fi": "9.00–17.00"}],
        "pair:wrong_script": [{"en": sentence("hi", 1), "fi": sentence("fi", 1)}],
        "pair:length_ratio": [{"en": sentence("en", 1, 60), "fi": sentence("fi", 1, 5)}],
        "pair:repeated": [made(4)[3], made(1)[0]],
    }
    rows = [*made(20), *(row for several in wrong.values() for row in several)]
    parsed = read_pairs(write_lines(tmp_path / "a.jsonl", *rows))
    assert rejected(parsed) == {reason: len(several) for reason, several in wrong.items()}
    assert sum(len(parts(document)) for document in documents(parsed)) == 20


def test_lengths_are_judged_by_the_usual_ratio_of_the_source(tmp_path):
    """Devanagari takes three bytes a letter: by bytes alone every pair would be implausible."""
    rows = made(50, ("en", "hi"))
    sizes = [(len(row["en"].encode()), len(row["hi"].encode())) for row in rows]
    assert np.median([b / a for a, b in sizes]) > 1.6
    rows += [{"en": sentence("en", 99, 40), "hi": sentence("hi", 99, 8)}, {"en": "Save", "hi": "सुरक्षित करें"}]
    path = write_lines(tmp_path / "a.jsonl", *rows)
    assert rejected(read_pairs(path, ("en", "hi"))) == {"pair:length_ratio": 1}
    assert rejected(read_pairs(path, ("hi", "en"))) == {"pair:length_ratio": 1}
    assert "pair:length_ratio" not in rejected(read_pairs(path, ("en", "hi"), pairs={"length_ratio_max": 20}))


def test_a_document_has_one_address_and_one_license(tmp_path):
    rows = made(60)
    for number, row in enumerate(rows):
        row |= {"url": f"https://example.org/{number // 20}", "license": "CC0-1.0" if number < 50 else "CC-BY-4.0"}
    found = documents(read_pairs(write_lines(tmp_path / "a.jsonl", *rows), pairs={"document_bytes": "100K"}))
    assert [(d["url"][-1], d["license"], d["id"]) for d in found] == [
        ("0", "CC0-1.0", "p0"),
        ("1", "CC0-1.0", "p20"),
        ("2", "CC0-1.0", "p40"),
        ("2", "CC-BY-4.0", "p50"),
    ]


def test_documents_are_the_same_whatever_the_threads(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "BLOCK_BYTES", 20_000)
    rows = made(800)
    path = write_lines(tmp_path / "a.jsonl", *rows, *rows[::7])
    source = SourceConfig.model_validate({"kind": "jsonl", "path": str(path), "pairs": {"langs": ["en", "fi"]}})
    outcomes = []
    for threads in (1, 3):
        with ordered_threads(threads) as in_order:
            parsed = list(open_source(source, "d", DomainConfig(rules="pairs"), CurateConfig()).read(in_order))
        assert len(parsed) > 3
        outcomes.append((documents(parsed), rejected(parsed)))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][1] == {"pair:repeated": len(rows[::7])}


@given(st.lists(st.tuples(st.integers(1, 400), st.booleans()), min_size=1, max_size=60), st.integers(1, 1000))
def test_packing_keeps_the_limit_and_the_changes(rows, most_bytes):
    sizes, changes = (np.array(column) for column in zip(*rows, strict=True))
    changes[0] = True
    starts = _starts(sizes, changes, most_bytes).tolist()
    assert set(np.flatnonzero(changes).tolist()) <= set(starts) and starts == sorted(set(starts))
    for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
        assert sizes[start:end].sum() <= most_bytes or end == start + 1


def test_template_separator_and_one_pair_a_document(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", *made(2))
    template = "### Translate into {{ target_language }}: {{ source }}\n### {{ target }}"
    found = documents(read_pairs(path, pairs={"template": template, "document_bytes": 1}))
    assert [document["text"] for document in found] == [
        f"### Translate into Finnish: {sentence('en', 0)}\n### {sentence('fi', 0)}",
        f"### Translate into English: {sentence('fi', 1)}\n### {sentence('en', 1)}",
    ]
    (together,) = documents(read_pairs(path, pairs={"template": template, "separator": "\n---\n"}))
    assert together["text"].count("\n---\n") == 1


def test_a_template_that_fails_at_a_pair_costs_that_pair_only(tmp_path):
    template = "{{ source }} {{ target }}{% if '12' in source %}{{ 1 // 0 }}{% endif %}"
    parsed = read_pairs(write_lines(tmp_path / "a.jsonl", *made(20)), pairs={"template": template})
    assert rejected(parsed) == {"template_failed": 1}
    assert json.loads(documents(parsed)[0]["meta"])["pairs"] == 19
    assert "division" in parsed[0].hint


def test_pairs_come_from_every_kind_of_record(tmp_path):
    rows = made(3)
    lines = {lang: "".join(row[lang] + "\n" for row in rows) for lang in ("en", "fi")}
    both = "".join(f"{row['en']}\t{row['fi']}\n" for row in rows)
    unit = "<tu><tuv xml:lang='en'><seg>{en}</seg></tuv><tuv xml:lang='fi'><seg>{fi}</seg></tuv></tu>"
    memory = f"<tmx><body>{''.join(unit.format(**row) for row in rows)}</body></tmx>"
    write_files(tmp_path, {"a.tsv": both, "m.en": lines["en"], "m.fi": lines["fi"], "a.tmx": memory})
    nested = [{"translation": {"en": row["en"], "fi": row["fi"]}} for row in rows]
    pq.write_table(pa.Table.from_pylist(nested), tmp_path / "a.parquet")
    columns, fields = {"columns": ["en", "fi"]}, {"fields": {"en": "translation.en", "fi": "translation.fi"}}
    (expected,) = documents(read_pairs(write_lines(tmp_path / "a.jsonl", *rows)))
    for found in (
        read_pairs(tmp_path / "a.tsv", kind="tsv", **columns),
        read_pairs(tmp_path / "m", kind="moses", **columns),
        read_pairs(tmp_path / "a.tmx", kind="tmx", **columns),
        read_pairs(tmp_path / "a.parquet", kind="parquet", pairs=fields),
    ):
        assert [document["text"] for document in documents(found)] == [expected["text"]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "jsonl", "pairs": {"langs": ["en", "en"]}}, "langs has 'en' twice"),
        ({"kind": "jsonl", "pairs": {"langs": ["en", "xx"]}}, "language 'xx' is unknown, expected one of en, fi"),
        (
            {"kind": "jsonl", "pairs": {"langs": ["en", "fi"], "fields": {"sv": "a"}}},
            "fields has 'sv', expected en or fi",
        ),
        ({"kind": "jsonl", "pairs": {"langs": ["en", "fi"]}, "template": "{{ en }}"}, "is `pairs.template`"),
        ({"kind": "text", "pairs": {"langs": ["en", "fi"]}}, "pairs is for jsonl, .*, not for text"),
        ({"kind": "tsv", "columns": ["en", "sv"], "pairs": {"langs": ["en", "fi"]}}, "pairs needs 'fi', which is not"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        SourceConfig.model_validate({"path": "a", **settings})


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ source }}", "leaves out {{ target }}"),
        ("{{ source }} {{ target }} {{ url }}", "'url' is undefined; it has source, target"),
        ("{{ source", "is not valid Jinja2"),
    ],
)
def test_wrong_templates_are_refused_before_anything_is_read(tmp_path, template, message):
    with pytest.raises(RecipeError, match=message):
        read_pairs(write_lines(tmp_path / "a.jsonl", *made(1)), pairs={"template": template})


def test_pairs_are_not_judged_as_text(tmp_path):
    source = {"kind": "jsonl", "path": "a", "pairs": {"langs": ["en", "fi"]}}
    with pytest.raises(ValidationError, match="rules: text, which are not for text in two languages"):
        DomainConfig.model_validate({"sources": [source]})


def curated(tmp_path, *paths, **settings) -> dict:
    sources = [{"kind": "jsonl", "path": str(path), "pairs": {"langs": ["en", lang]}} for lang, path in paths]
    domain = DomainConfig.model_validate({"rules": "pairs", "sources": sources, **settings})
    return curate(CurateConfig(), {"parallel": domain}, tmp_path / "out", seed=0, progress=Heard())


def test_a_domain_of_pairs_goes_through_all_passes(tmp_path):
    rows = [
        *made(400),
        {"en": "ice lake " * 50, "fi": "jää järvi " * 50, "url": "u"},
        {"en": "Red", "fi": "Puna", "url": "v"},
    ]
    record = curated(tmp_path, ("fi", write_lines(tmp_path / "a.jsonl", *rows, {"en": "", "fi": "Tyhjä"})))
    (domain,) = record["domains"].values()
    dropped = {reason for one in domain["passes"] for reason in one["dropped"]}
    assert dropped == {"pair:empty_side", "quality:characters", "quality:duplicate_5_grams"}
    assert domain["rejected_records"] == {"pair:empty_side": 1}
    table = pq.read_table(
        tmp_path / "out" / "parallel" / "train-00000.parquet", columns=["text", "quality.special_character_ratio"]
    )
    assert table.num_rows > 10


@pytest.mark.real_data
def test_real_pairs_are_kept_and_their_copies_dropped(tmp_path, shared_data):
    langs = ("fi", "hi", "ja", "vi")
    record = curated(tmp_path, *((lang, shared_data / "parallel" / f"{lang}-en.jsonl.zst") for lang in langs))
    domain = record["domains"]["parallel"]
    reasons = domain["rejected_records"]
    # Of 143,071 pairs 29,735 are the same in both languages, and 29,023 of the others came before.
    assert reasons["pair:identical_sides"] == pytest.approx(29_735, rel=0.02)
    assert reasons["pair:repeated"] == pytest.approx(29_023, rel=0.02)
    assert sum(reasons.get(f"pair:{one}", 0) for one in ("no_letters", "wrong_script", "length_ratio")) < 1_200
    read_in = next(one for one in domain["passes"] if one["name"] == "read")["documents_out"]
    files = sorted((tmp_path / "out" / "parallel").glob("*-*.parquet"))
    kept = pa.concat_tables([pq.read_table(file, columns=["text", "meta"]) for file in files]).to_pylist()
    assert len(kept) > 0.97 * read_in
    sizes = {}
    for document in kept:
        direction = json.loads(document["meta"])["direction"]
        sizes[direction] = sizes.get(direction, 0) + len(document["text"].encode())
    for lang in langs:
        assert sizes[f"en-{lang}"] == pytest.approx(sizes[f"{lang}-en"], rel=0.03)


@pytest.mark.real_data
def test_real_pairs_are_those_that_a_plain_loop_keeps(shared_data):
    path, plain, seen = shared_data / "parallel" / "fi-en.jsonl.zst", [], set()
    with path.open("rb") as file:
        lines = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), encoding="utf-8").readlines()
    for record in map(json.loads, lines):
        pair = tuple(unicodedata.normalize("NFC", record[lang]).strip() for lang in ("en", "fi"))
        folded = {"".join(letter for letter in side.lower() if letter.isalnum()) for side in pair}
        key = tuple(" ".join(side.lower().split()) for side in pair)
        if len(folded) == 2 and all(any(map(str.isalpha, side)) for side in pair) and key not in seen:
            plain.append(pair)
            seen.add(key)
    found = []
    for document in documents(read_pairs(path, max_line_bytes=64_000_000)):
        for first, a, _, b in parts(document):
            found.append((a, b) if first == "English" else (b, a))
    assert found == plain
