"""Batches: packing, cursors across phases, positions; held-out tokens are scored once each."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurora_m.tokens import DomainTokens, FimConfig, TrainBatches, heldout_batches
from aurora_m.workspace import DataError, RecipeError

from .toy import EOD, FIM_IDS, Documents, write_domain

lengths_of_documents = st.lists(st.integers(1, 40), min_size=1, max_size=12)


def domains_of(*names: str, documents: int = 30) -> dict[str, Documents]:
    rng = np.random.default_rng(5)
    return {
        name: Documents([rng.integers(10, 500, rng.integers(1, 60)).tolist() for _ in range(documents)], name)
        for name in names
    }


def assert_equal(ours, theirs):
    assert ours.domains == theirs.domains
    for name in ("input_ids", "targets", "document_ids", "positions"):
        assert np.array_equal(getattr(ours, name), getattr(theirs, name))


def test_a_batch_is_what_the_contract_says():
    batches = TrainBatches(domains_of("a", "b"), {"a": 0.75, "b": 0.25}, 32, 1, EOD)
    batch = batches.next_batch(8)
    assert batch.input_ids.shape == batch.targets.shape == batch.document_ids.shape == batch.positions.shape == (8, 32)
    assert [batch.input_ids.dtype, batch.targets.dtype] == [np.int64, np.int64]
    assert [batch.document_ids.dtype, batch.positions.dtype] == [np.int32, np.int32]
    assert np.array_equal(batch.input_ids[:, 1:], batch.targets[:, :-1])
    assert (batch.domains.count("a"), batch.domains.count("b")) == (6, 2)
    assert (batch.targets >= 0).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(0, 9))
def test_positions_restart_at_each_eod_and_stay_below_the_length(length, seed):
    batch = TrainBatches(domains_of("a"), {"a": 1.0}, length, seed, EOD).next_batch(6)
    for inputs, positions in zip(batch.input_ids, batch.positions, strict=True):
        expected, position = [], -1
        for token in inputs:
            position = 0 if token == EOD else position + 1
            expected.append(position)
        assert positions.tolist() == expected
        assert positions.max() < length


@settings(max_examples=30, deadline=None)
@given(
    before=st.integers(0, 5),
    between=st.integers(0, 5),
    lengths=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    fim=st.sampled_from([None, FimConfig(domains=["a"])]),
)
def test_resume_equals_uninterrupted_across_a_phase_boundary(before, between, lengths, fim):
    def run(stop_after: int | None):
        batches = TrainBatches(domains_of("a", "b"), {"a": 0.3, "b": 0.7}, lengths[0], 1, EOD, fim, FIM_IDS)
        for _ in range(before):
            batches.next_batch(3)
        batches.start_phase({"a": 0.9, "b": 0.1}, lengths[1])
        for step in range(between + 4):
            if step == stop_after:
                state = json.loads(json.dumps(batches.state_dict()))
                batches = TrainBatches(domains_of("a", "b"), {"b": 1.0}, 5, 1, EOD, fim, FIM_IDS)
                batches.load_state_dict(state)
            yield batches.next_batch(3)

    for ours, theirs in zip(run(None), run(between), strict=True):
        assert_equal(ours, theirs)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.05, 0.95), st.floats(0.05, 0.95), st.lists(st.integers(1, 40), min_size=1, max_size=5))
def test_shares_and_lengths_never_change_a_domains_order(first, second, lengths):
    def stream_of_a(share: float, lengths: list[int]) -> np.ndarray:
        batches = TrainBatches(domains_of("a", "b"), {"a": share, "b": 1 - share}, 8, 1, EOD)
        given_out = []
        for length in lengths:
            batches.start_phase({"a": share, "b": 1 - share}, length)
            batch = batches.next_batch(10)
            given_out += [batch.input_ids[row] for row in range(10) if batch.domains[row] == "a"]
        return np.concatenate([*given_out, []])

    one, other = stream_of_a(first, [16] * 3), stream_of_a(second, lengths)
    common = min(len(one), len(other))
    assert np.array_equal(one[:common], other[:common])


def test_epochs_count_over_all_phases():
    domains = domains_of("a", "b")
    batches = TrainBatches(domains, {"a": 1.0}, 10, 1, EOD)
    batches.next_batch(20)
    batches.start_phase({"a": 0.5, "b": 0.5}, 20)
    batches.next_batch(10)
    assert batches.epochs == {"a": 300 / domains["a"].tokens, "b": 100 / domains["b"].tokens}


def test_a_changed_mixture_holds_exactly_from_there_and_is_remembered():
    batches = TrainBatches(domains_of("a", "b"), {"a": 1.0}, 10, 1, EOD)
    batches.start_phase({"a": 0.5, "b": 0.5}, 10, "CAP")
    batches.next_batch(3)
    batches.change_mixture({"a": 0.5, "b": 0.5}, "the same")
    batches.change_mixture({"a": 0.9, "b": 0.1}, "undone before it gave anything")
    batches.change_mixture({"a": 0.25, "b": 0.75}, "guardrails")
    for _ in range(4):
        assert batches.next_batch(4).domains.count("b") == 3
    assert batches.history == [
        {"phase": "CAP", "tokens": 0, "shares": {"a": 0.5, "b": 0.5}, "why": "phase begins"},
        {"phase": "CAP", "tokens": 30, "shares": {"a": 0.25, "b": 0.75}, "why": "guardrails"},
    ]
    resumed = TrainBatches(domains_of("a", "b"), {"a": 1.0}, 10, 1, EOD)
    resumed.load_state_dict(json.loads(json.dumps(batches.state_dict())))
    resumed.start_phase({"b": 1.0}, 20, "CAT")
    assert resumed.history[2:] == [{"phase": "CAT", "tokens": 190, "shares": {"b": 1.0}, "why": "phase begins"}]
    with pytest.raises(RecipeError, match="phase CAT: shares sum to 0.5"):
        resumed.change_mixture({"a": 0.5}, "guardrails")
    assert resumed.shares == {"b": 1.0}


def test_what_makes_no_sense_is_refused():
    with pytest.raises(RecipeError, match="phase CAP: shares sum to 0.5"):
        TrainBatches(domains_of("a"), {"a": 1.0}, 8, 1, EOD).start_phase({"a": 0.5}, 8, "CAP")
    with pytest.raises(RecipeError, match="unknown domain 'b'"):
        TrainBatches(domains_of("a"), {"a": 0.5, "b": 0.5}, 8, 1, EOD)
    with pytest.raises(RecipeError, match="tokenizer with fill-in-the-middle tokens"):
        TrainBatches(domains_of("a"), {"a": 1.0}, 8, 1, EOD, FimConfig(domains=["a"]), None)
    with pytest.raises(RecipeError, match=r"train.fim.domains names \['cod'\]"):
        TrainBatches(domains_of("a"), {"a": 1.0}, 8, 1, EOD, FimConfig(domains=["cod"]), FIM_IDS)
    with pytest.raises(DataError, match="domain 'a' has no documents"):
        TrainBatches({"a": Documents([], "a")}, {"a": 1.0}, 8, 1, EOD)


@settings(max_examples=40, deadline=None)
@given(lengths_of_documents, st.integers(1, 30), st.integers(1, 4), st.sampled_from([None, 1, 30, 10_000]))
def test_each_heldout_token_is_scored_once_and_no_eod(tmp_path_factory, lengths, length, batch_size, max_tokens):
    folder = tmp_path_factory.mktemp("tokens")
    rng = np.random.default_rng(0)
    texts = [rng.integers(1, 500, size).tolist() for size in lengths]
    write_domain(folder, [[*text, EOD] for text in texts], split="heldout", shard_tokens=50)
    tokens = DomainTokens(folder, "toy", "heldout")
    batches = heldout_batches(tokens, length, batch_size, EOD, max_tokens)
    scored = {number: [] for number in batches.documents_scored.tolist()}
    seen = list(batches)
    for batch in seen:
        assert batch.input_ids.shape[0] <= batch_size
        assert batch.input_ids.shape == batch.targets.shape == batch.document_index.shape
        assert np.array_equal(batch.targets == -100, batch.document_index == -1)
        for target, number in zip(batch.targets.ravel(), batch.document_index.ravel(), strict=True):
            if number >= 0:
                scored[number].append(target)
    assert scored == {number: texts[number] for number in scored}
    assert batches.bytes.tolist() == [3 * (len(texts[number]) + 1) for number in scored]
    assert len(seen) == len(batches)
    assert sum(batch.input_ids.shape[0] for batch in seen) == batches.windows
    if max_tokens is None or max_tokens >= tokens.tokens:
        assert list(scored) == list(range(len(texts)))
    else:
        assert len(scored) == 1 or sum(lengths[number] + 1 for number in scored) <= max_tokens


def test_heldout_inputs_are_the_targets_one_later_and_documents_are_apart(tmp_path):
    write_domain(tmp_path, [[5, 6, 7, EOD], [8, EOD], [9, 10, EOD]], split="heldout")
    (batch,) = heldout_batches(DomainTokens(tmp_path, "toy", "heldout"), 6, 4, EOD)
    assert batch.input_ids.tolist() == [[EOD, 5, 6, 7, EOD, 8], [EOD, 9, 10, EOD, EOD, EOD]]
    assert batch.targets.tolist() == [[5, 6, 7, -100, 8, -100], [9, 10, -100, -100, -100, -100]]
    assert batch.document_ids.tolist() == [[1, 1, 1, 1, 2, 2], [1, 1, 1, 2, 2, 2]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 0, 1], [0, 1, 2, 0, 1, 2]]
    assert batch.document_index.tolist() == [[0, 0, 0, -1, 1, -1], [2, 2, -1, -1, -1, -1]]
