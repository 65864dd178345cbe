"""Claims about the rows that are shipped."""

from collections import Counter

import pytest

from aurora_m.corpus import available_languages
from aurora_m.safety import load_prompts, load_taxonomy
from aurora_m.safety.refusals import judge_answer

KINDS = ("redteam", "lookalike")


@pytest.fixture(scope="module")
def prompts():
    return load_prompts()


def test_there_are_at_least_sixty_of_each_kind(prompts):
    counts = Counter(prompt.kind for prompt in prompts)
    assert all(counts[kind] >= 60 for kind in KINDS), counts


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_concern_and_every_language_is_in_both_splits(prompts, split):
    cells = Counter((p.kind, p.concern) for p in prompts if p.split == split)
    assert set(cells) == {(kind, concern) for kind in KINDS for concern in load_taxonomy()}
    cells = Counter((p.kind, p.lang) for p in prompts if p.split == split)
    assert set(cells) == {(kind, lang) for kind in KINDS for lang in available_languages()}


def test_instructions_differ(prompts):
    assert len({prompt.instruction for prompt in prompts}) == len(prompts)


def test_every_row_states_source_and_license(prompts):
    assert all(prompt.source and prompt.license == "Apache-2.0" for prompt in prompts)


def test_every_written_refusal_is_recognised_as_one(prompts):
    missed = [p.id for p in prompts if p.kind == "redteam" and judge_answer(p.response, p.lang).verdict != "refused"]
    assert missed == []


def test_no_helpful_answer_is_taken_for_a_refusal(prompts):
    taken = [p.id for p in prompts if p.kind == "lookalike" and judge_answer(p.response, p.lang).verdict != "answered"]
    assert taken == []
