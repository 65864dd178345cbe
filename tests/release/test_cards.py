"""The cards tell the run's own figures, and foreign text cannot break them."""

import json
import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tests.report.run_folder import HOSTILE, make_run

from aurora_m.release import ReleaseConfig, read_facts
from aurora_m.release.cards import cell, data_card, front_matter, model_card
from aurora_m.workspace import read_json

SUMMARY = {
    "name": "quickstart",
    "license": "apache-2.0",
    "author": None,
    "languages": ["en", "fi"],
    "aurora_m": "0.1.0",
    "model": {"type": "gpt_bigcode", "dtype": "float32", "instruction_tuned": True, "parameters": 5e6, "tokens": 4e6},
    "verification": {"max_logit_difference": 1e-7, "windows": 8, "tokens": 400, "round_trips": 6},
}
CONFIG = ReleaseConfig(license="apache-2.0")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("cards") / "run")


@pytest.fixture(scope="module")
def card(run) -> str:
    return model_card(CONFIG, read_facts(run), read_json(run / "recipe.json"), SUMMARY)


def columns(line: str) -> int:
    return len(re.findall(r"(?<!\\)\|", line))


def assert_tables_are_whole(text: str) -> None:
    for line, following in zip(text.splitlines(), text.splitlines()[1:], strict=False):
        if line.startswith("|") and following.startswith("|"):
            assert columns(line) == columns(following), following


def test_front_matter_is_yaml_the_hub_reads(card):
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["language"] == ["en", "fi"] and head["license"] == "apache-2.0"
    assert head["library_name"] == "transformers" and "aurora-m" in head["tags"] and "base_model" not in head


def test_an_imported_base_is_named_only_when_it_is_a_hub_id(run, tmp_path):
    facts = read_facts(run)
    hub = front_matter(CONFIG, facts, {"base": {"path": "bigcode/starcoderplus"}}, SUMMARY)
    assert yaml.safe_load(hub)["base_model"] == "bigcode/starcoderplus"
    local = front_matter(CONFIG, facts, {"base": {"path": str(tmp_path)}}, SUMMARY)
    assert "base_model" not in yaml.safe_load(local)


def test_forgetting_and_learning_are_in_the_table(card):
    assert "| en | known | 1.620 | 1.690 | 1.707 | +5.4% |" in card
    assert "| fi | new language | 2.710 | 1.780 | 1.798 | −33.7% |" in card


def test_energy_is_in_the_card(card):
    assert (
        "| energy of training | 0.00321 kWh (processors and memory 0.00321), 0.802 kWh per billion tokens |"
        in card.replace("\\", "")
    )


def test_safety_has_intervals_and_says_plainly_what_is_unreviewed(card):
    assert "| all prompts | 0.0% (0.0% to 13.8%, n=24) | 66.7% (46.7% to 82.0%, n=24) |" in card
    assert "**90 of the 96 examples of the safety data have not been reviewed by a person.**" in card


def test_restricted_licences_are_called_out(card):
    assert "**CC-BY-NC-SA-4.0: non-commercial, share-alike.** 1,330 documents" in card
    assert "**not stated: not stated.**" not in card
    assert "**No licence stated.** 442 documents" in card


def test_limitations_follow_from_the_figures(card):
    assert "worse than its base on en (+5.4%), code (+2.7%)" in card
    assert "code 4.6 times in CAP" in card
    assert "at small scale" in card


def test_foreign_text_has_no_effect(card, run):
    data = data_card(read_facts(run), SUMMARY)
    for text in (card, data):
        assert "<script" not in text
        assert HOSTILE.replace("<", "&lt;").replace(">", "&gt;") in text
        assert_tables_are_whole(text)


def test_a_run_without_evaluation_says_that_nothing_was_measured(tmp_path):
    run = make_run(tmp_path / "run", ("curate", "tokenize", "train"))
    card = model_card(CONFIG, read_facts(run), read_json(run / "recipe.json"), SUMMARY)
    assert "Refusal and over-refusal were not measured." in card
    assert "The review status of the safety data is not recorded" in card
    assert "| fi | new language | 2.710 | 1.780 | 1.780 | −34.3% |" in card


@given(st.text(max_size=300))
def test_a_cell_is_one_line_without_markup(text):
    shown = cell(text)
    assert "\n" not in shown and "\r" not in shown
    assert not re.search(r"(?<!\\)(\\\\)*[`*|\[\]~$]", shown)
    assert "<" not in shown and ">" not in shown
    assert not re.match(r"\s*([#+=-]|\d+[.)])", shown)


def test_ordinary_names_stay_readable():
    assert cell("gpt_bigcode, CC-BY-4.0") == "gpt_bigcode, CC-BY-4.0"
    assert cell("a | b\n# c _d_") == r"a \| b # c \_d\_"
    assert cell("1. x") == r"1\. x" and cell("# x") == r"\# x"


def test_the_card_says_how_guarded_domains_ended(tmp_path):
    run = make_run(tmp_path / "run")
    look = {"change": 0.012, "budget": 0.01, "share": 0.1, "share_before": 0.1}
    row = {"phase": "CAP", "tokens": 3_596_288, "progress": 1.0, "infeasible": [], "domains": {"en": look}}
    (run / "train" / "guardrails.jsonl").write_text(json.dumps(row) + "\n")
    card = model_card(CONFIG, read_facts(run), read_json(run / "recipe.json"), SUMMARY)
    assert re.search(r"\| CAP \| en \| \+1\.0+% \| \+1\.20*% \| no \|", card), re.findall(r".*CAP \| en.*", card)
    assert_tables_are_whole(card)
