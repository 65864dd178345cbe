"""Generation: greedy as transformers does it, drawn reproducibly, stopped where it must stop."""

from collections import Counter

import pytest
import torch

from aurora_m.model import generate, load_model
from aurora_m.model.generation import _Sampler
from aurora_m.workspace import AuroraError

EOD = 0
LENGTHS = (3, 17, 8, 1, 17, 30)


@pytest.fixture
def prompts(tokens) -> list[list[int]]:
    return [tokens(length, seed=length + row).tolist() for row, length in enumerate(LENGTHS)]


def test_greedy_is_that_of_transformers(their_model, prompts, kind, tmp_path):
    theirs = their_model(kind)
    theirs.save_pretrained(tmp_path)
    answers = generate(load_model(tmp_path), prompts, 16, EOD, batch_size=4)
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = torch.tensor([prompt])
        expected = theirs.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False, pad_token_id=EOD
        )[0, len(prompt) :].tolist()
        assert answer == (expected[: expected.index(EOD)] if EOD in expected else expected)


def test_greedy_answers_do_not_depend_on_the_batches(our_model, prompts, architecture):
    model = our_model(**architecture)
    alone = generate(model, prompts, 16, EOD, batch_size=1)
    assert alone == generate(model, prompts, 16, EOD, batch_size=4) == generate(model, prompts, 16, EOD, batch_size=16)


def test_generation_stops_at_the_end_of_the_document(our_model, prompts):
    model = our_model()
    free = generate(model, prompts, 20, eod_id=-1)
    assert all(len(answer) == 20 for answer in free)
    stop = free[0][5]
    stopped = generate(model, prompts, 20, eod_id=stop)
    assert stopped[0] == free[0][: free[0].index(stop)]


def test_draws_depend_on_the_seed_and_not_on_the_batches(our_model, prompts):
    model = our_model("llama")
    drawn = generate(model, prompts, 12, EOD, temperature=1.0, top_p=0.95, seed=5, batch_size=16)
    assert drawn == generate(model, prompts, 12, EOD, temperature=1.0, top_p=0.95, seed=5, batch_size=2)
    assert drawn != generate(model, prompts, 12, EOD, temperature=1.0, top_p=0.95, seed=6)
    twice = generate(model, [prompts[0]] * 2, 12, EOD, temperature=5.0, seed=5)
    assert twice[0] != twice[1]


def test_a_tiny_top_p_is_greedy(our_model, prompts):
    model = our_model()
    assert generate(model, prompts, 8, EOD, temperature=1.0, top_p=1e-6, seed=1) == generate(model, prompts, 8, EOD)


def test_draws_follow_the_distribution():
    shares = torch.tensor([0.5, 0.3, 0.15, 0.05])
    logits = shares.log().repeat(4000, 1)
    everything = Counter(
        _Sampler(1.0, 1.0, seed=3).choose(logits, _Sampler(1.0, 1.0, 3).generators(list(range(4000)))).tolist()
    )
    for token, share in enumerate(shares.tolist()):
        assert everything[token] / 4000 == pytest.approx(share, abs=0.03)
    nucleus = Counter(
        _Sampler(1.0, 0.6, seed=3).choose(logits, _Sampler(1.0, 0.6, 3).generators(list(range(4000)))).tolist()
    )
    assert set(nucleus) == {0, 1}
    assert nucleus[0] / 4000 == pytest.approx(0.5 / 0.8, abs=0.03)


def test_long_prompts_keep_their_end_and_are_reported(our_model, tokens):
    model, said = our_model(), []
    long, short = tokens(200).tolist(), tokens(10).tolist()
    answers = generate(model, [long, short], 14, eod_id=-1, say=said.append)
    assert answers[0] == generate(model, [long[-50:]], 14, eod_id=-1)[0]
    assert said == ["1 of 2 prompts were longer than 50 tokens; only their last 50 were used"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_new_tokens": 64}, "max_new_tokens 64 leaves no room for a prompt in 64 positions"),
        ({"prompts": [[5], []]}, "prompt 1 has no tokens"),
        ({"temperature": -1.0}, "temperature -1.0 must be at least 0"),
        ({"top_p": 0.0}, "top_p 0.0 within"),
    ],
)
def test_impossible_wishes_are_refused(our_model, arguments, message):
    with pytest.raises(AuroraError, match=message):
        generate(our_model(), **({"prompts": [[5]], "max_new_tokens": 4, "eod_id": EOD} | arguments))


def test_no_prompts_no_answers(our_model):
    assert generate(our_model(), [], 4, EOD) == []


def test_padded_vocabulary_is_never_drawn(our_model, prompts):
    model = our_model(vocab_rows=128)
    answers = generate(model, prompts, 12, eod_id=-1, temperature=50.0, seed=1)
    assert max(max(answer) for answer in answers) < 97
