"""What was dropped can be looked at without harm."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from aurora_m.release import RunFacts
from aurora_m.report.curation import curation_section, data_section, dropped_sample, reason_label


def write(path, texts, reasons):
    pq.write_table(pa.table({"id": [str(n) for n in range(len(texts))], "text": texts, "drop_reason": reasons}), path)


def test_documents_are_cut_and_cleaned(tmp_path):
    write(tmp_path / "d.parquet", ["a\x00\u202eb" + "x" * 5_000_000], ["quality:too_long"])
    (document,) = dropped_sample(tmp_path / "d.parquet")
    assert len(document["text"]) <= 301 and document["text"].startswith("a bx") and document["text"].endswith("…")
    assert document["reason"] == "quality: too long"


def test_every_reason_is_seen_before_any_is_seen_twice(tmp_path):
    write(tmp_path / "d.parquet", ["t"] * 60, ["a"] * 30 + ["b"] * 29 + ["c"])
    reasons = [document["reason"] for document in dropped_sample(tmp_path / "d.parquet")]
    assert reasons[:3] == ["a", "b", "c"] and reasons.count("a") == 3


def test_joiners_that_hindi_spelling_needs_are_kept(tmp_path):
    write(tmp_path / "d.parquet", ["क्\u200dष"], ["a"])
    assert dropped_sample(tmp_path / "d.parquet")[0]["text"] == "क्\u200dष"


def test_no_file_is_no_sample(tmp_path):
    assert dropped_sample(tmp_path / "d.parquet") == []
    assert reason_label("near_duplicate") == "near duplicate"


def test_a_corpus_of_a_thousand_sources_and_licences_stays_a_page(tmp_path):
    counts = {"documents_in": 9, "bytes_in": 9, "documents_kept": 2, "bytes_kept": 5}
    sources = {f"owner/{n}": {**counts, "licenses": {f"licence {n}": 2}} for n in range(1000)}
    section = data_section(RunFacts(tmp_path, curation={"domains": {"code": {"sources": sources}}}))
    assert section is not None and section["source_count"] == 1000 and len(section["sources"]) == 200
    assert len(section["licenses"]) == 41
    assert sum(row["total"] for row in section["licenses"]) == 2000


def funnel_of(bytes_left: list[int], counted: dict | None) -> dict:
    passes = [
        {"name": name, "documents_in": 9, "bytes_in": 900, "documents_out": 8, "bytes_out": left, "dropped": {}}
        for name, left in zip(("read", "quality", "near_duplicates"), bytes_left, strict=True)
    ]
    tokens = None if counted is None else {"domains": {"fi": counted}}
    section = curation_section(RunFacts(Path(), curation={"domains": {"fi": {"passes": passes}}}, tokens=tokens))
    assert section is not None
    return section["funnels"][0]


def test_tokens_are_counted_of_what_was_kept_and_estimated_before():
    counted = {"train": {"bytes": 500, "tokens": 123}, "heldout": {"bytes": 100, "tokens": 27}}
    funnel = funnel_of([880, 800, 600], counted)
    assert funnel["has_tokens"]
    assert [(step["tokens"], step["tokens_counted"]) for step in funnel["steps"]] == [
        (220, False),
        (200, False),
        (150, True),
    ]


def test_tokens_of_another_curation_are_no_count_of_this_one():
    steps = funnel_of([880, 800, 640], {"train": {"bytes": 600, "tokens": 150}})["steps"]
    assert [(step["tokens"], step["tokens_counted"]) for step in steps] == [(220, False), (200, False), (160, False)]


def test_nothing_is_said_of_tokens_before_they_are_counted():
    for counted in (None, {}, {"train": {"bytes": 0, "tokens": 0}}):
        for left in ([880, 800, 600], [880, 0, 0]):
            funnel = funnel_of(left, counted)
            assert not funnel["has_tokens"] and not any(step["tokens_counted"] for step in funnel["steps"])


def test_records_that_reading_rejected_are_counted_once(tmp_path):
    dropped = {"not JSON": {"documents": 3, "bytes": 9}}
    step = {"name": "read", "documents_in": 5, "bytes_in": 20, "documents_out": 2, "bytes_out": 11, "dropped": dropped}
    domain = {"passes": [step], "rejected_records": {"not JSON": 3, "not_sampled": 2}}
    section = curation_section(RunFacts(tmp_path, curation={"domains": {"fi": domain}}))
    assert section is not None and section["reasons"] == []
    assert [(row["label"], row["total"]) for row in section["rejected"]] == [("not JSON", 3), ("not sampled", 2)]


def test_the_table_of_evaluation_sets_stays_small():
    one = {"set": "s", "domain": "d", "source": "x", "items": 1, "longest_words": 13}
    overlaps = [{**one, "documents": n} for n in range(100)]
    facts = RunFacts(Path(), curation={"domains": {}, "decontamination": {"sets": [], "overlaps": overlaps}})
    section = curation_section(facts)
    assert section is not None
    assert [row["documents"] for row in section["decontamination"]["overlaps"]] == list(range(99, 59, -1))
    assert section["decontamination"]["overlap_count"] == 100


def test_languages_expected_and_found_are_a_table_of_shares(tmp_path):
    fi = {"languages": {"fi": {"fi": 90, "en": 6, "mixed": 4}}, "passes": []}
    ja = {"languages": {"ja": {"ja": 10, **{f"l{n:02}": 1 for n in range(10)}}}, "passes": []}
    ja["foreign_paragraphs"] = {"documents": 2, "languages": {"en": {"paragraphs": 3, "bytes": 400}}}
    section = curation_section(RunFacts(tmp_path, curation={"domains": {"fi": fi, "ja": ja, "code": {"passes": []}}}))
    assert section is not None
    table = section["languages"]
    assert table["labels"] == ["fi", "ja", "en", "mixed", *(f"l{n:02}" for n in range(6)), "others"]
    first, second = table["rows"]
    assert [cell["count"] for cell in first["cells"]] == [90, 0, 6, 4, *[0] * 7]
    assert [cell["own"] for cell in second["cells"]] == [False, True, *[False] * 9]
    assert second["cells"][-1] == {"count": 4, "share": 0.2, "own": False}
    assert section["foreign"] == [{"domain": "ja", "language": "en", "paragraphs": 3, "bytes": 400}]


def test_the_passages_removed_most_come_first():
    counts = {"documents": 1, "characters": 9, "bytes": 9, "spans": 0}
    domains = {
        name: {"repeated_text": {**counts, "passages": n, "top": [{"text": f"note\x00{name}", "removed": n}]}}
        for name, n in (("a", 2), ("b", 3), ("c", 0))
    }
    section = curation_section(RunFacts(Path(), curation={"domains": domains}))
    assert section is not None
    assert [row["text"] for row in section["repeated_text"]["top"]] == ["note b", "note a"]
    assert [row["domain"] for row in section["repeated_text"]["totals"]] == ["a", "b"]
