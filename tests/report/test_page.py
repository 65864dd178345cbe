"""The report: one page, complete, harmless, whatever the run folder holds."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tests.report.run_folder import HOSTILE, NEW, STAGES, make_run

from aurora_m.report import write_report
from aurora_m.workspace import AuroraError

SECTIONS = ("curation", "data", "mixture", "loss", "ledger", "evaluation", "costs", "recipe")
LOADING_TAGS = {
    "script",
    "link",
    "img",
    "iframe",
    "object",
    "embed",
    "base",
    "form",
    "video",
    "audio",
    "source",
    "image",
}


class Reader(HTMLParser):
    """Collects a page's tags, attributes and ids."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.attributes if key == name]


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("report")
    return write_report(make_run(folder / "run"), folder / "out").read_text(encoding="utf-8")


def test_all_sections_are_there_and_none_is_called_missing(page):
    assert set(SECTIONS) <= set(Reader(page).values("id"))
    assert "has not run yet" not in page


def test_foreign_text_is_escaped(page):
    assert HOSTILE.replace("<", "&lt;").replace(">", "&gt;") in page
    assert "<script" not in page.lower()


def test_page_loads_nothing_and_runs_nothing(page):
    reader = Reader(page)
    assert not LOADING_TAGS & set(reader.tags)
    assert not [name for name, _ in reader.attributes if name == "src" or name.startswith("on")]
    assert all(target.startswith("#") for target in reader.values("href"))
    assert all(match.startswith("url(#") for match in re.findall(r"url\([^)]*\)", page))
    assert "@import" not in page


def test_ids_are_unique_and_every_mention_of_one_has_a_target(page):
    reader = Reader(page)
    ids = reader.values("id")
    assert len(ids) == len(set(ids))
    mentioned = {target[1:] for target in reader.values("href")} | set(re.findall(r"url\(#([^)]*)\)", page))
    assert mentioned <= set(ids)


def test_page_stays_under_two_megabytes(page):
    assert len(page.encode()) < 2_000_000


def test_headline_has_the_figures_of_the_run(page):
    for figure in ("3.99M tokens", "−35.7%", "+4.0%", "0% → 67%", "3 min 58 s", "5.3M-parameter"):
        assert figure in page


def test_the_funnel_has_tokens_once_they_are_counted(tmp_path):
    run = make_run(tmp_path / "run", ("curate",))
    assert ">tokens</span>" not in write_report(run, tmp_path / "out").read_text(encoding="utf-8")
    curation = json.loads((run / "curated" / "curation.json").read_text())
    kept = curation["domains"]["fi"]["passes"][-1]["bytes_out"]
    counted = {"train": {"documents": 9, "bytes": kept, "tokens": 1_234_567}}
    (run / "tokens").mkdir()
    (run / "tokens" / "tokens.json").write_text(json.dumps({"tokenizer": {}, "domains": {"fi": counted}}))
    page = write_report(run, tmp_path / "out").read_text(encoding="utf-8")
    assert page.count(">tokens</span>") == 1 and page.count(">1,234,567</span>") == 1
    assert len(re.findall(r">about [\d.]+[KM]</span>", page)) == 5


def test_energy_is_among_the_costs_or_said_not_to_be_measured(page, tmp_path):
    words = "Energy of training: 0.00321 kWh (processors and memory 0.00321), 0.802 kWh per billion tokens."
    assert words in page
    without = write_report(make_run(tmp_path / "run", ("curate",)), tmp_path / "out").read_text(encoding="utf-8")
    assert "Energy of training: not measured." in without


def test_every_domain_has_its_ledger_plot_with_the_change_in_the_title(page):
    labels = [label for label in Reader(page).values("aria-label") if "bits per byte over training" in label]
    assert len(labels) == 6
    assert "fi: bits per byte over training, −34.3%" in labels
    assert "en: bits per byte over training, +4.3%" in labels


def test_unreviewed_safety_data_is_said_plainly(page):
    assert "90 of the 96 examples used for tuning were not reviewed by people." in page


def test_same_run_gives_the_same_page(page, tmp_path):
    assert write_report(make_run(tmp_path / "run"), tmp_path / "out").read_text(encoding="utf-8") == page


@pytest.mark.parametrize("done", range(len(STAGES)))
def test_stages_that_have_not_run_are_named_and_the_rest_is_shown(done, tmp_path):
    run = make_run(tmp_path / "run", STAGES[:done])
    page = write_report(run, tmp_path / "out").read_text(encoding="utf-8")
    assert set(SECTIONS) <= set(Reader(page).values("id"))
    assert "aurora-m evaluate RECIPE" in page
    assert ("aurora-m curate RECIPE" in page) == (done == 0)


def test_a_run_that_is_still_training_is_shown(tmp_path):
    run = make_run(tmp_path / "run", ("curate", "tokenize", "train"))
    (run / "train" / "train.json").unlink()
    (run / "manifests" / "train.json").unlink()
    page = write_report(run, tmp_path / "out").read_text(encoding="utf-8")
    assert 'aria-label="Training loss, all domains"' in page
    assert 'aria-label="Share of training tokens by domain, over training"' in page


def test_an_empty_folder_gives_a_page_that_says_so(tmp_path):
    page = write_report(tmp_path, tmp_path / "out").read_text(encoding="utf-8")
    assert page.count("has not run yet") == 6


def test_domain_names_of_any_script_and_with_markup_are_names(tmp_path):
    name = '日本語 <b onload=x> & "$x^$'
    run = make_run(tmp_path / "run")
    for path in [*run.rglob("*.json"), run / "train" / "metrics.jsonl"]:
        path.write_text(path.read_text(encoding="utf-8").replace('"fi"', json.dumps(name)), encoding="utf-8")
    page = write_report(run, tmp_path / "out").read_text(encoding="utf-8")
    assert "日本語 &lt;b onload=x&gt; &amp; &#34;$x^$" in page
    assert "onload" not in [attribute for attribute, _ in Reader(page).attributes]


def test_a_folder_that_is_not_there_is_one_clear_message(tmp_path):
    with pytest.raises(AuroraError, match="is not a folder"):
        write_report(tmp_path / "absent", tmp_path / "out")


@pytest.mark.parametrize("name", ["curated/curation.json", "train/ledger.parquet", "evaluation/evaluation.json"])
def test_a_damaged_result_file_is_named_and_no_page_is_written(name, tmp_path):
    run = make_run(tmp_path / "run")
    (run / name).write_bytes(b"{ damaged")
    with pytest.raises(AuroraError, match=Path(name).name):
        write_report(run, tmp_path / "out")
    assert not (tmp_path / "out" / "index.html").exists()


def test_languages_are_told_apart_from_what_the_base_knew(page):
    start = page.index("New languages: how much was learned")
    block = page[start : page.index("Known domains: how much was forgotten")]
    assert all(f'aria-label="{domain}: bits' in block for domain in NEW)


def test_secrets_of_the_recipe_are_left_out(tmp_path):
    run = make_run(tmp_path / "run")
    recipe = json.loads((run / "recipe.json").read_text())
    recipe["domains"]["en"]["sources"][0]["path"] = "s3://me:hunter2@bucket/x.jsonl?X-Signature=abc123"
    recipe["hf_token"] = "hf_verysecret"
    (run / "recipe.json").write_text(json.dumps(recipe))
    page = write_report(run, tmp_path / "out").read_text(encoding="utf-8")
    assert not [secret for secret in ("hunter2", "abc123", "hf_verysecret") if secret in page]


def test_page_opens_in_a_browser(page, tmp_path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium here; install it to have the page opened for real")
    (tmp_path / "index.html").write_text(page, encoding="utf-8")
    switches = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync"
    command = [browser, *switches.split(), f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    opened = subprocess.run(
        [*command, (tmp_path / "index.html").as_uri()], capture_output=True, text=True, timeout=120, check=False
    )
    assert opened.returncode == 0, opened.stderr[-500:]
    # the browser's own reading of the page: the same pictures, and no element that foreign text smuggled in
    assert opened.stdout.count("<svg") == page.count("<svg")
    assert "<script" not in opened.stdout
