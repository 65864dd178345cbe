"""Partitions: an interrupted curation goes on, a breaking document costs only itself, the engine changes no byte."""

import hashlib
import os
import signal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tests.corpus.test_curation import QUIET, plain, sample_domains, sentence, source

import aurora_m.corpus.partitions as partitions_module
import aurora_m.corpus.screening as screening
from aurora_m.corpus import CurateConfig, DomainConfig, curate
from aurora_m.corpus.engine import open_engine
from aurora_m.workspace import DataError, RecipeError


def run(out: Path, domains: dict[str, DomainConfig], partitions: Path | None = None, **settings: Any) -> dict:
    config = CurateConfig.model_validate(settings)
    return curate(config, domains, out, seed=1, progress=QUIET, partitions=partitions)


def checksums(out: Path) -> dict[str, str]:
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*.parquet"))
    }


def shelves(folder: Path, count: int = 6) -> dict[str, DomainConfig]:
    """Two domains of a folder of files each, some texts in both."""
    domains = {}
    for name, first in (("first", 0), ("second", 20)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            start = first + 10 * number
            source(folder / name / f"{number}.jsonl", *(sentence(seed) for seed in range(start, start + 10)))
        domains[name] = plain({"kind": "jsonl", "path": str(folder / name)})
    return domains


@pytest.fixture
def screened_files(monkeypatch) -> list[str]:
    """The files that a first reading reads, in order."""
    names: list[str] = []
    read = partitions_module._Reading.pieces

    def pieces(reading, in_order):
        names.extend(f"{Path(file.path).parent.name}/{file.name}" for file in reading.source.files)
        return read(reading, in_order)

    monkeypatch.setattr(partitions_module._Reading, "pieces", pieces)
    return names


def test_what_an_interrupted_run_has_finished_is_not_done_again(tmp_path, screened_files):
    domains = shelves(tmp_path / "data")
    run(tmp_path / "whole", domains, partition_bytes=1)
    assert len(screened_files) == 12
    damaged = tmp_path / "data/second/3.jsonl"
    content = damaged.read_bytes()
    damaged.rename(damaged.with_suffix(".jsonl.gz"))
    screened_files.clear()
    with pytest.raises(DataError, match="3.jsonl.gz"):
        run(tmp_path / "out", domains, tmp_path / "work", partition_bytes=1)
    assert screened_files[-1] == "second/3.jsonl.gz"
    assert not list((tmp_path / "work").rglob("*.incomplete*"))
    assert not list((tmp_path / "out").rglob("*.parquet"))
    screened_files.clear()
    damaged.with_suffix(".jsonl.gz").unlink()
    damaged.write_bytes(content)
    run(tmp_path / "out", domains, tmp_path / "work", partition_bytes=1)
    assert screened_files == ["second/3.jsonl", "second/4.jsonl", "second/5.jsonl"]
    assert checksums(tmp_path / "out") == checksums(tmp_path / "whole")


def prose(folder: Path) -> DomainConfig:
    """A domain that several rules drop something of: documents of 10 to 60 sentences, some of them twice, some edited."""
    texts = [". ".join(sentence(10 * seed + place) for place in range(10 + seed % 50)) + "." for seed in range(60)]
    texts += [texts[3], texts[4].replace("a", "e", 40), texts[5].replace("e", "a", 9)]
    texts += [f"{sentence(9000, 60)}\n{sentence(seed, words)}" for seed, words in ((9001, 200), (9002, 100))]
    folder.mkdir(parents=True, exist_ok=True)
    source(folder / "prose.jsonl", *texts)
    sources = [{"kind": "jsonl", "path": str(folder / "prose.jsonl")}]
    return DomainConfig.model_validate({"sources": sources, "thresholds": NO_STOP_WORDS})


NO_STOP_WORDS = {"distinct_stop_words_min": None, "stop_word_ratio_min": None}


@pytest.mark.parametrize(
    ("thresholds", "settings"),
    [
        ({"word_count_min": 200}, {}),
        ({"characters_min": None, "mean_word_length_max": 4.2}, {}),
        ({}, {"near_duplicates": {"threshold": 0.3}}),
        ({}, {"repeated_text": {"unit": "lines", "min_words": 5, "min_words_left": 150}}),
    ],
)
def test_other_thresholds_are_laid_on_the_scores_there_are(tmp_path, screened_files, thresholds, settings):
    base = {"repeated_text": {"unit": "lines", "min_words": 5}}
    domains = {"prose": prose(tmp_path / "data")}
    before = run(tmp_path / "before", domains, tmp_path / "work", **base)
    assert screened_files == ["data/prose.jsonl"]
    changed = {"prose": domains["prose"].model_copy(update={"thresholds": {**NO_STOP_WORDS, **thresholds}})}
    screened_files.clear()
    again = run(tmp_path / "again", changed, tmp_path / "work", **{**base, **settings})
    assert not screened_files, "nothing was read"
    fresh = run(tmp_path / "fresh", changed, **{**base, **settings})
    assert checksums(tmp_path / "again") == checksums(tmp_path / "fresh")
    assert without_seconds(again["domains"]["prose"]) == without_seconds(fresh["domains"]["prose"])
    assert without_seconds(again["domains"]["prose"]) != without_seconds(before["domains"]["prose"])


def without_seconds(record: dict) -> dict:
    passes = [{key: value for key, value in one.items() if key != "seconds"} for one in record["passes"]]
    return {**record, "passes": passes}


@pytest.mark.parametrize("change", [{"redact": ["email"]}, {"near_duplicates": {"ngram": 4}}])
def test_settings_that_scores_depend_on_score_again(tmp_path, screened_files, change):
    domains = {"prose": prose(tmp_path / "data")}
    run(tmp_path / "before", domains, tmp_path / "work")
    (first,) = (tmp_path / "work/prose").iterdir()
    run(tmp_path / "again", domains, tmp_path / "work", **change)
    assert len(screened_files) == 2
    assert first not in (tmp_path / "work/prose").iterdir(), "what no recipe asks for any more is gone"


def test_scores_are_not_kept_where_the_recipe_says_so(tmp_path):
    run(tmp_path / "out", {"prose": prose(tmp_path / "data")}, tmp_path / "work", keep_scored=False)
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("change", ["setting", "file"])
def test_a_partition_of_other_settings_or_files_is_not_taken(tmp_path, screened_files, change, monkeypatch):
    domains = shelves(tmp_path / "data", 2)
    monkeypatch.setattr("aurora_m.corpus.curation._resolve", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(tmp_path / "out", domains, tmp_path / "work", partition_bytes=1)
    assert len(screened_files) == 4
    screened_files.clear()
    settings: dict[str, Any] = {"partition_bytes": 1}
    if change == "file":
        source(tmp_path / "data/first/1.jsonl", *(sentence(seed) for seed in range(500, 520)))
    else:
        settings["redact"] = ["email"]
    with pytest.raises(ZeroDivisionError):
        run(tmp_path / "out", domains, tmp_path / "work", **settings)
    assert screened_files == (["first/1.jsonl"] if change == "file" else [
        "first/0.jsonl", "first/1.jsonl", "second/0.jsonl", "second/1.jsonl",
    ])  # fmt: skip
    assert len(list((tmp_path / "work").glob("*/*"))) == 4  # those of before are gone


def test_the_documents_do_not_depend_on_the_size_of_partitions(tmp_path):
    domains = shelves(tmp_path / "data")
    for size in (1, 5_000, 256_000_000):
        run(tmp_path / str(size), domains, partition_bytes=size)
    frames = [pl.read_parquet(tmp_path / str(size) / "*/train-*.parquet") for size in (1, 5_000, 256_000_000)]
    assert frames[0].equals(frames[2]) and frames[1].equals(frames[2])


def test_a_source_with_a_limit_is_one_partition(tmp_path, screened_files):
    folder = tmp_path / "data"
    shelves(folder)
    domain = plain({"kind": "jsonl", "path": str(folder / "first"), "limit_documents": 15})
    result = run(tmp_path / "out", {"d": domain}, partition_bytes=1)
    assert result["domains"]["d"]["passes"][0]["documents_in"] == 15
    assert len(screened_files) == 6


def test_a_document_that_breaks_a_pass_costs_only_itself(tmp_path, monkeypatch):
    redact = screening.redact_pass

    def breaking(texts, *rest):
        if any("bad apple" in text for text in texts.to_pylist()):
            raise IndexError("beyond the end")
        return redact(texts, *rest)

    monkeypatch.setattr(screening, "redact_pass", breaking)
    texts = [sentence(seed) for seed in range(40)]
    texts[7] += " bad apple"
    texts[30] += " bad apple"
    result = run(tmp_path / "out", {"d": plain(source(tmp_path / "d.jsonl", *texts))})
    domain = result["domains"]["d"]
    assert domain["passes"][0]["dropped"]["failed:IndexError"]["documents"] == 2
    assert domain["passes"][0]["documents_in"] == 40
    assert domain["train"]["documents"] + domain["heldout"]["documents"] == 38
    assert any("failed:IndexError" in warning for warning in result["warnings"])


ray = pytest.importorskip("ray", reason="needs pip install aurora-m[ray]")


@pytest.fixture(scope="module")
def cluster():
    """Two worker processes."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=2, include_dashboard=False, logging_level="error", log_to_driver=False)
    yield
    ray.shutdown()


def test_ray_gives_the_bytes_that_threads_give(tmp_path, cluster):
    domains = sample_domains("fi", "ja") | shelves(tmp_path / "data")
    by_threads = run(tmp_path / "threads", domains, threads=1, partition_bytes=2_000)
    by_ray = run(tmp_path / "ray", domains, engine="ray", partition_bytes=2_000)
    assert checksums(tmp_path / "ray") == checksums(tmp_path / "threads")
    for name, domain in by_threads["domains"].items():
        theirs = by_ray["domains"][name]
        assert domain["sources"] == theirs["sources"] and domain["scores"] == theirs["scores"]
        counts = [{**one, "seconds": 0} for one in domain["passes"]]
        assert counts == [{**one, "seconds": 0} for one in theirs["passes"]]


def test_a_mistake_found_by_a_worker_is_told_as_by_threads(tmp_path, cluster):
    domains = shelves(tmp_path / "data", 2)
    (tmp_path / "data/first/0.jsonl.gz").write_bytes(b"\x1f\x8b not really")
    with pytest.raises(DataError, match=r"0\.jsonl\.gz is cut off or damaged"):
        run(tmp_path / "out", domains, engine="ray", partition_bytes=1)


def _die_once(marker: Path, in_order, tell) -> None:
    if marker.name == "dies" and not marker.exists():
        marker.write_text("died")
        os.kill(os.getpid(), signal.SIGKILL)
    tell(10, 1)


def test_a_lost_worker_costs_only_its_own_work(tmp_path, cluster):
    told = []
    with open_engine("ray", 1, None) as engine:
        engine.for_each(_die_once, [tmp_path / name for name in ("a", "dies", "b", "c")], lambda *n: told.append(n))
    assert (tmp_path / "dies").exists()
    assert told == [(10, 1)] * 4


def _screen_but_die_once(work, in_order, tell) -> None:
    def dying(*counts: int) -> None:
        marker = work.folder.with_suffix(".died")
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        tell(*counts)

    partitions_module.screen_partition(work, in_order, dying)


def test_workers_killed_in_the_middle_change_nothing(tmp_path, cluster, monkeypatch):
    domains = shelves(tmp_path / "data", 2)
    run(tmp_path / "threads", domains, partition_bytes=1)
    monkeypatch.setattr("aurora_m.corpus.curation.screen_partition", _screen_but_die_once)
    run(tmp_path / "ray", domains, tmp_path / "work", engine="ray", partition_bytes=1)
    assert len(list((tmp_path / "work").rglob("*.died"))) == 4
    assert not list((tmp_path / "work").rglob("*.incomplete*"))
    assert checksums(tmp_path / "ray") == checksums(tmp_path / "threads")


def test_no_cluster_at_the_address_is_one_message():
    if ray.is_initialized():
        ray.shutdown()
    with pytest.raises(RecipeError, match=r"127\.0\.0\.1:1"), open_engine("ray", 1, "127.0.0.1:1"):
        pass
