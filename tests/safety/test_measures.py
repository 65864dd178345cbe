import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.safety.material import ANSWERS, QUIET, row, write_rows, write_trained

from aurora_m.evaluation import EvaluateConfig
from aurora_m.safety import Prompt, load_prompts, measure_safety, measures
from aurora_m.safety.measures import limit_prompts, rate_of, wilson_interval

CONFIG = EvaluateConfig(max_new_tokens=4, batch_size=3)


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def model(train):
    return train / "CAT" / "model"


@pytest.fixture
def scripted(monkeypatch):
    """Answers instead of a model's: calls are counted, and every red-team prompt is refused but one."""
    calls = []

    def generate(model, prompts, max_new_tokens, eod_id, **settings):
        calls.append(len(prompts))
        return prompts

    monkeypatch.setattr(measures, "generate", generate)
    monkeypatch.setattr(measures, "format_instruction", lambda instruction: instruction)
    said = {"forbidden question 20": "Here is how.", "harmless question 5": " ...", "forbidden": ANSWERS["redteam"]}

    def answer(prompt, text):
        found = [reply for begin, reply in said.items() if text.startswith(begin)]
        return original(prompt, found[0] if found else "Take the left door.")

    original = measures._answer_row
    monkeypatch.setattr(measures, "_answer_row", answer)
    return calls


def test_a_real_model_answers_every_test_prompt(rows_file, model, tmp_path):
    result = measure_safety({"before": model, "after": model}, ["en", "fi"], CONFIG, tmp_path / "a.jsonl", QUIET)
    rows = read(tmp_path / "a.jsonl")
    tested = [prompt.id for prompt in load_prompts([rows_file], split="test")]
    assert [r["id"] for r in rows] == tested * 2
    assert {r["model"] for r in rows} == {"before", "after"}
    fields = ["model", "id", "kind", "concern", "lang", "instruction", "answer", "verdict", "refused", "phrase"]
    assert list(rows[0]) == fields
    assert result["before"] == result["after"] and set(result["after"]) == {"refusal", "over_refusal"}
    assert set(result["after"]["refusal"]) == {"all", "by_concern", "by_language"}


def test_refusals_are_counted_by_concern_and_language(rows_file, model, tmp_path, scripted):
    result = measure_safety({"after": model}, ["en", "fi"], CONFIG, tmp_path / "a.jsonl", QUIET)["after"]
    rates = result["refusal"]
    assert (rates["all"]["refused"], rates["all"]["total"]) == (3, 4)
    assert sum(group["total"] for group in rates["by_concern"].values()) == 4
    assert sum(group["refused"] for group in rates["by_language"].values()) == 3
    assert list(rates["by_concern"]) == ["harm", "cyber", "cbrn", "illegal", "privacy", "evasion"]


def test_empty_answers_count_in_the_total_and_as_no_refusal(rows_file, model, tmp_path, scripted):
    result = measure_safety({"after": model}, ["en", "fi"], CONFIG, tmp_path / "a.jsonl", QUIET)["after"]
    over = result["over_refusal"]["all"]
    assert (over["refused"], over["empty"], over["total"]) == (0, 1, 4)


def test_language_without_prompts_has_an_empty_group(rows_file, model, tmp_path, scripted):
    result = measure_safety({"after": model}, ["ja"], CONFIG, tmp_path / "a.jsonl", QUIET)["after"]
    nothing = {"refused": 0, "empty": 0, "total": 0, "rate": None, "low": 0.0, "high": 1.0}
    assert result["refusal"]["by_language"] == {"ja": nothing} and result["refusal"]["all"] == nothing
    assert read(tmp_path / "a.jsonl") == []


def test_no_languages_means_all_that_have_prompts(rows_file, model, tmp_path, scripted):
    result = measure_safety({"after": model}, [], CONFIG, tmp_path / "a.jsonl", QUIET)["after"]
    assert list(result["refusal"]["by_language"]) == ["en", "fi"]
    assert result["refusal"]["all"]["total"] == 4


def test_one_folder_under_two_names_answers_once(rows_file, model, tmp_path, scripted):
    again = model.parent / ".." / "CAT" / "model"
    measure_safety({"before": model, "after": again}, [], CONFIG, tmp_path / "a.jsonl", QUIET)
    assert sum(scripted) == 8 and len(read(tmp_path / "a.jsonl")) == 16


def test_two_folders_answer_each(rows_file, model, tmp_path, tokens, scripted):
    other = write_trained(tmp_path / "other", tokens, seed=3) / "CAT" / "model"
    measure_safety({"before": model, "after": other}, [], CONFIG, tmp_path / "a.jsonl", QUIET)
    assert sum(scripted) == 16


def test_users_rows_are_measured_and_rejected_ones_are_not(rows_file, model, tmp_path, scripted):
    mine = [row(200, split="test"), row(202, split="test", review={"status": "rejected"}), row(204, split="train")]
    path = write_rows(tmp_path / "mine.jsonl", mine)
    measure_safety({"after": model}, [], CONFIG, tmp_path / "a.jsonl", QUIET, data=[str(path)])
    assert [r["id"] for r in read(tmp_path / "a.jsonl") if r["id"].startswith("row-20")] == ["row-20", "row-200"]


def test_limit_takes_from_each_concern_in_turn():
    prompts = [Prompt.model_validate(row(n, kind="redteam", lang="en")) for n in range(24)]
    assert len({prompt.concern for prompt in limit_prompts(prompts, 6)}) == 6
    assert len(limit_prompts(prompts, 6)) == 6 and limit_prompts(prompts, None) == prompts
    mixed = [Prompt.model_validate(row(n)) for n in range(24)]
    assert len(limit_prompts(mixed, 1)) == 4  # two kinds, two languages


def test_rate_comes_with_its_interval():
    rate = rate_of(["refused"] * 8 + ["answered", "empty"])
    assert rate["rate"] == 0.8 and rate["empty"] == 1 and rate["total"] == 10
    # Wilson (1927) for 8 of 10, as in Agresti and Coull (1998): 0.49 to 0.94.
    assert (rate["low"], rate["high"]) == pytest.approx((0.4902, 0.9433), abs=1e-4)


@given(st.integers(0, 200), st.integers(0, 200))
def test_interval_holds_the_rate_and_stays_within_zero_and_one(hits, misses):
    low, high = wilson_interval(hits, hits + misses)
    assert 0 <= low <= high <= 1
    if hits + misses:
        assert low - 1e-12 <= hits / (hits + misses) <= high + 1e-12
