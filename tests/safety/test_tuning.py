import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.safety.material import row

from aurora_m.safety import Prompt, ResponseBatches, format_instruction
from aurora_m.safety.tuning import Example, encode_prompts, pack
from aurora_m.tokens import DomainTokens, TrainBatches, load_tokenizer
from aurora_m.workspace import DataError

EOD = 9


def make_example(number: int, length: int, response: int) -> Example:
    """Tokens that tell whose they are: 1000 * number, counting up between two EOD."""
    inner = 1000 * number + np.arange(1, length)
    return Example(np.array([EOD, *inner, EOD], np.int32), response, truncated=False)


def make_batches(seed: int = 1, count: int = 20, sequence_length: int = 32, **replay) -> ResponseBatches:
    examples = [make_example(n, 4 + 3 * n % 17, 1 + n % 3) for n in range(count)]
    return ResponseBatches(examples, sequence_length, seed, EOD, **replay)


def deal(batches: ResponseBatches, count: int) -> list[list[list[int]]]:
    """For each of `count` sequences its input ids and targets."""
    batch = batches.next_batch(count)
    return [[batch.input_ids[n].tolist(), batch.targets[n].tolist()] for n in range(count)]


@pytest.fixture(scope="module")
def tokenizer(tokens):
    return load_tokenizer(tokens / "tokenizer")


@pytest.fixture
def replay(tokens):
    return TrainBatches({"notes": DomainTokens(tokens, "notes")}, {"notes": 1.0}, 32, 1, EOD)


# ------------------------------------------------------------------------------------------ the format


def test_the_prompt_format_is_the_published_one():
    assert format_instruction(" What {is} this?\n") == "### Instruction:\nWhat {is} this?\n\n### Response:\n"


def test_example_is_eod_instruction_response_eod_and_only_the_response_and_its_end_are_scored(tokenizer):
    prompt = Prompt.model_validate(row(0))
    (example,) = encode_prompts([prompt], tokenizer, 1000)
    instruction = tokenizer.encode(format_instruction(prompt.instruction))
    response = tokenizer.encode(prompt.response)
    assert example.tokens.tolist() == [tokenizer.eod_id, *instruction, *response, tokenizer.eod_id]
    assert example.response == len(response) + 1 and not example.truncated
    batch = ResponseBatches([example], example.length, 1, tokenizer.eod_id).next_batch(1)
    assert batch.targets[0, : len(instruction)].tolist() == [-100] * len(instruction)
    assert batch.targets[0, len(instruction) :].tolist() == [*response, tokenizer.eod_id]


def test_special_tokens_spelled_out_in_a_prompt_are_text(tokenizer):
    (example,) = encode_prompts([Prompt.model_validate(row(0, response=f"a{tokenizer.eod}b"))], tokenizer, 1000)
    assert example.tokens.tolist().count(tokenizer.eod_id) == 2


def test_too_long_example_loses_its_end_and_one_without_room_for_a_response_is_none(tokenizer):
    prompt = Prompt.model_validate(row(0))
    whole = encode_prompts([prompt], tokenizer, 1000)[0]
    instruction = whole.length - whole.response
    (cut,) = encode_prompts([prompt], tokenizer, instruction + 3)
    assert cut.truncated and cut.length == instruction + 3 and cut.response == 3
    assert cut.tokens.tolist() == whole.tokens[: cut.length + 1].tolist()
    assert encode_prompts([prompt], tokenizer, instruction) == [None]


# ------------------------------------------------------------------------------------------ packing


@given(st.lists(st.integers(1, 50), max_size=80))
def test_packing_places_each_example_once_and_overfills_nothing(lengths):
    sequences = pack(lengths, 50)
    assert sorted(number for sequence in sequences for number in sequence) == list(range(len(lengths)))
    assert all(sequence and sum(lengths[n] for n in sequence) <= 50 for sequence in sequences)
    # Best fit: no two sequences could have been one that is at most half full.
    assert sum(2 * sum(lengths[n] for n in sequence) <= 50 for sequence in sequences) <= 1


def test_each_example_is_a_document_with_positions_from_zero_and_padding_is_ignored():
    batches = make_batches()
    batch = batches.next_batch(8)
    assert batch.input_ids.dtype == batch.targets.dtype == np.int64
    assert batch.document_ids.dtype == batch.positions.dtype == np.int32 and batch.domains == ["safety"] * 8
    for ids, targets, documents, positions in zip(
        batch.input_ids, batch.targets, batch.document_ids, batch.positions, strict=True
    ):
        for document in np.unique(documents):
            own = documents == document
            assert positions[own].tolist() == list(range(own.sum()))
            if document == 0:
                assert (targets[own] == -100).all()
                continue
            inputs, number = ids[own], ids[own][1] // 1000
            expected = batches.examples[number]
            assert inputs.tolist() == expected.tokens[:-1].tolist()
            scored = targets[own] != -100
            assert scored.sum() == expected.response and scored[-expected.response :].all()
            assert targets[own][scored].tolist() == expected.tokens[-expected.response :].tolist()


def test_an_epoch_has_every_example_once_and_the_next_another_order():
    batches = make_batches()
    epochs = []
    for epoch in range(2):
        firsts = []
        while batches.epoch == epoch:
            ids = batches.next_batch(1).input_ids[0]
            begins = np.flatnonzero((ids[:-1] == EOD) & (ids[1:] != EOD))
            firsts += (ids[begins + 1] // 1000).tolist()
        epochs.append(firsts)
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(20))
    assert epochs[0] != epochs[1]
    assert batches.epochs == {"safety": 2.0}
    assert batches.response_tokens == 2 * sum(example.response for example in batches.examples)


def test_order_depends_on_the_seed_only():
    assert deal(make_batches(seed=3), 9) == deal(make_batches(seed=3), 9)
    assert deal(make_batches(seed=3), 9) != deal(make_batches(seed=4), 9)


@pytest.mark.parametrize("dealt", [0, 1, 7, 30])
def test_state_round_trip_continues_with_the_same_sequences(dealt, replay, tokens):
    first = make_batches(replay=replay, replay_share=0.3)
    first.next_batch(dealt + 1)
    again = make_batches(
        replay=TrainBatches({"notes": DomainTokens(tokens, "notes")}, {"notes": 1.0}, 32, 1, EOD), replay_share=0.3
    )
    again.load_state_dict(first.state_dict())
    assert deal(first, 20) == deal(again, 20)
    assert first.epochs == again.epochs


def test_state_of_other_examples_is_refused():
    with pytest.raises(DataError, match="20 examples"):
        make_batches(count=19).load_state_dict(make_batches(count=20).state_dict())


def test_counted_sequences_give_the_epochs_asked_for():
    batches = make_batches()
    batches.next_batch(batches.count_sequences(2))
    assert batches.epochs["safety"] == 2.0
    half = make_batches()
    half.next_batch(half.count_sequences(0.5))
    assert 0.5 <= half.epochs["safety"] < 0.75


def test_replay_has_its_share_and_the_examples_still_their_epochs(replay):
    batches = make_batches(replay=replay, replay_share=0.25)
    count = batches.count_sequences(4)
    domains = batches.next_batch(count).domains
    assert abs(domains.count("notes") - 0.25 * count) <= 1
    assert 4 <= batches.epochs["safety"] < 4.3 and batches.epochs["notes"] > 0


def test_no_examples_is_a_data_error():
    with pytest.raises(DataError, match="no examples"):
        ResponseBatches([], 32, 1, EOD)
