"""A domain's stream: nothing skipped, nothing repeated, the same from any cursor; fill-in-the-middle loses no token."""

from collections import Counter
from itertools import groupby

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurora_m.tokens import DomainStream, FimConfig
from aurora_m.tokens.order import named_key, shuffled
from aurora_m.workspace import DataError

from .toy import EOD, FIM_IDS, Documents


def numbered(lengths: list[int]) -> Documents:
    """Documents of the given lengths in which no token occurs twice."""
    ids = iter(range(10, 60_000))
    return Documents([[next(ids) for _ in range(length)] for length in lengths])


def reference(documents: Documents, seed: int, tokens: int) -> list[int]:
    """The stream's first tokens, assembled the slow way from windows of one token each."""
    stream = DomainStream(documents, seed, EOD)
    return [int(stream.next(1)[0][0]) for _ in range(tokens)]


def numbers_in_order(documents: Documents, seed: int, epochs: int = 700) -> list[int]:
    """The documents of many epochs, by the rule that the stream follows."""
    keys = (named_key("order", seed, documents.domain, epoch) for epoch in range(epochs))
    return [number for key in keys for number in shuffled(documents.documents, 0, documents.documents, key).tolist()]


def once_in_a_row(numbers) -> list[int]:
    return [number for number, _ in groupby(numbers)]


lengths_of_documents = st.lists(st.integers(1, 40), min_size=1, max_size=12)
window_lengths = st.lists(st.integers(1, 50), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(lengths_of_documents, window_lengths, st.integers(0, 5))
def test_windows_of_changing_length_join_to_the_stream(lengths, windows, seed):
    documents = numbered(lengths)
    stream = DomainStream(documents, seed, EOD)
    pieces = [stream.next(length) for length in windows]
    expected = reference(documents, seed, sum(windows) + 1)
    assert np.concatenate([piece[0] for piece in pieces]).tolist() == expected[:-1]
    assert np.concatenate([piece[1] for piece in pieces]).tolist() == expected[1:]


@settings(max_examples=60, deadline=None)
@given(lengths_of_documents, window_lengths, st.integers(0, 5), st.data())
def test_quarantined_documents_are_passed_over_and_the_order_of_the_others_stays(lengths, windows, seed, data):
    documents = numbered(lengths)
    some = data.draw(st.sets(st.integers(0, len(lengths) - 1), max_size=len(lengths) - 1))
    stream = DomainStream(documents, seed, EOD)
    stream.quarantine(some)
    dealt = once_in_a_row(number for length in windows for number in stream.next(length)[3])
    expected = once_in_a_row(number for number in numbers_in_order(documents, seed) if number not in some)
    assert dealt == expected[: len(dealt)]
    resumed = DomainStream(documents, seed, EOD)
    resumed.quarantine(some)
    resumed.load_state_dict(stream.state_dict())
    assert resumed.next(50)[3] == stream.next(50)[3]
    with pytest.raises(DataError, match="quarantined"):
        stream.quarantine(range(len(lengths)))


def stream_with_joins(documents: Documents, seed: int, stages: list[tuple[int, set[int], int]]) -> list[int]:
    """The stream's tokens the slow way: all that is still to visit in a list, all tokens in another.

    Each stage: how many documents there are, which of them are gone, how many tokens are taken.
    """
    known, epoch, joins, to_visit, tokens = 0, -1, 0, [], []
    current: int | None = None
    left: list[int] = []
    for count, gone, wanted in stages:
        if known and count > known:
            joins += 1
            pool = [*to_visit, *range(known, count)]
            key = named_key("joined", seed, documents.domain, epoch, joins)
            to_visit = [pool[place] for place in shuffled(len(pool), 0, len(pool), key)]
        known = count
        if current in gone:
            left = []
        end = len(tokens) + wanted
        while len(tokens) < end or not left:  # the last target is a token on, which may be the next document's EOD
            if not left:
                if not to_visit:
                    epoch, joins = epoch + 1, 0
                    to_visit = shuffled(known, 0, known, named_key("order", seed, documents.domain, epoch)).tolist()
                current = to_visit.pop(0)
                left = [] if current in gone else [EOD, *documents.texts[current]]
                continue
            tokens.append(left.pop(0))
    return tokens


@settings(max_examples=150, deadline=None)
@given(st.data(), st.integers(0, 5), st.lists(st.integers(1, 20), min_size=4, max_size=14))
def test_documents_join_and_go_in_the_middle_of_an_epoch(data, seed, lengths):
    documents = numbered(lengths)
    counts = sorted(data.draw(st.lists(st.integers(3, len(lengths)), min_size=1, max_size=5)))
    stages = [
        (count, data.draw(st.sets(st.integers(0, count - 1), max_size=2)), data.draw(st.integers(1, 60)))
        for count in counts
    ]
    given_out: list[int] = []
    state = None
    for count, gone, wanted in stages:
        absent = np.isin(np.arange(count), list(gone)) if gone else None
        stream = DomainStream(Documents(documents.texts[:count], absent=absent), seed, EOD)
        if state:
            stream.load_state_dict(state)
        given_out += stream.next(wanted)[0].tolist()
        state = stream.state_dict()
    assert given_out == stream_with_joins(documents, seed, stages)


def test_no_document_is_repeated_before_those_that_joined_were_visited_too():
    documents = numbered([3] * 40)
    stream = DomainStream(Documents(documents.texts[:25]), 1, EOD)
    visited = stream.next(4 * 10)[3]
    joined = DomainStream(documents, 1, EOD)
    joined.load_state_dict(stream.state_dict())
    visited += joined.next(4 * 30)[3]
    assert sorted(once_in_a_row(visited)[:40]) == list(range(40))
    places = [place for place, number in enumerate(once_in_a_row(visited)) if number >= 25]
    assert min(places) < 18 and max(places) > 32  # spread over the rest, not at its end
    assert joined.next(4)[3][0] in range(40) and joined.state_dict()["joined"] == []


@settings(max_examples=60, deadline=None)
@given(lengths_of_documents, st.integers(0, 5), st.integers(1, 3))
def test_each_epoch_gives_each_document_whole_and_once(lengths, seed, epochs):
    documents = numbered(lengths)
    stream = DomainStream(documents, seed, EOD)
    for _ in range(epochs):
        tokens = stream.next(documents.tokens)[0].tolist()
        assert tokens[0] == EOD
        segments = "".join(map(chr, tokens)).split(chr(EOD))[1:]
        assert sorted([*map(ord, segment)] for segment in segments) == sorted(documents.texts)
    assert stream.epochs == epochs
    assert (stream.epoch, stream.position) == (epochs, 0) or stream.position == documents.documents - 1


@settings(max_examples=60, deadline=None)
@given(lengths_of_documents, window_lengths, window_lengths, st.booleans())
def test_a_resumed_stream_equals_one_that_was_not_interrupted(lengths, before, after, with_fim):
    documents = numbered(lengths)
    fim = FimConfig(domains=["toy"], rate=0.7) if with_fim else None
    stream = DomainStream(documents, 7, EOD, fim, FIM_IDS)
    for length in before:
        stream.next(length)
    resumed = DomainStream(documents, 7, EOD, fim, FIM_IDS)
    resumed.load_state_dict(stream.state_dict())
    for length in after:
        for ours, theirs in zip(stream.next(length), resumed.next(length), strict=True):
            assert np.array_equal(ours, theirs)
    assert stream.state_dict() == resumed.state_dict()


def test_document_ids_rise_at_each_eod_input():
    stream = DomainStream(numbered([3, 5, 1, 20]), 1, EOD)
    for _ in range(20):
        inputs, _, document_ids, _ = stream.next(7)
        assert np.array_equal(np.diff(document_ids), (inputs[1:] == EOD).astype(int))


def test_order_differs_between_seeds_domains_and_epochs():
    def order(seed=1, domain="toy", epoch=0):
        stream = DomainStream(Documents([[number] for number in range(10, 110)], domain), seed, EOD)
        return [stream.next(200)[0].tolist() for _ in range(epoch + 1)][-1]

    orders = [order(), order(seed=2), order(domain="other"), order(epoch=1)]
    assert len({tuple(tokens) for tokens in orders}) == 4
    assert order() == order()


@given(st.integers(1, 5000), st.integers(0, 2**62 - 1))
def test_shuffled_is_a_permutation_in_any_pieces(count, key):
    whole = shuffled(count, 0, count, key)
    assert np.array_equal(np.sort(whole), np.arange(count))
    cut = count // 3
    assert np.array_equal(np.concatenate([shuffled(count, 0, cut, key), shuffled(count, cut, count, key)]), whole)


@pytest.mark.parametrize("count", [2, 3, 7, 16, 100])
def test_shuffled_puts_every_number_everywhere_equally_often(count):
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 2**62, 200 * count).tolist()
    table = np.zeros((count, count))
    neighbours = np.zeros((count, count))
    for key in keys:
        order = shuffled(count, 0, count, key)
        table[np.arange(count), order] += 1
        neighbours[order[:-1], order[1:]] += 1
    # Chi-square with (count - 1)^2 degrees of freedom, five standard deviations.
    assert ((table - 200) ** 2 / 200).sum() < (count - 1) ** 2 + 5 * np.sqrt(2) * (count - 1) + 5
    if count > 3:
        expected = 200 * count * (count - 1) / (count * (count - 1))
        off_diagonal = neighbours[~np.eye(count, dtype=bool)]
        assert ((off_diagonal - expected) ** 2 / expected).sum() < len(off_diagonal) * (1 + 10 / count)


@settings(max_examples=60, deadline=None)
@given(lengths_of_documents, st.integers(0, 9), st.sampled_from([0.0, 0.5, 1.0]))
def test_fim_gives_back_the_document_when_its_parts_are_put_in_order(lengths, seed, spm_rate):
    documents = numbered(lengths)
    stream = DomainStream(documents, seed, EOD, FimConfig(domains=["toy"], rate=1.0, spm_rate=spm_rate), FIM_IDS)
    tokens = stream.next(documents.tokens + 3 * documents.documents)[0].tolist()
    restored = []
    for segment in "".join(map(chr, tokens)).split(chr(EOD))[1:]:
        assert segment[0] == chr(1)
        if segment[1] == chr(3) and spm_rate:
            suffix, rest = segment[2:].split(chr(2))
            # SPM joins prefix and middle: what follows the middle sentinel, then the suffix.
            restored.append(rest + suffix)
        else:
            prefix, rest = segment[1:].split(chr(3))
            suffix, middle = rest.split(chr(2))
            restored.append(prefix + middle + suffix)
    assert sorted([*map(ord, text)] for text in restored) == sorted(documents.texts)


def test_fim_rates_are_met_and_differ_by_epoch():
    documents = Documents([[50] * 20 for _ in range(2000)])
    stream = DomainStream(documents, 3, EOD, FimConfig(domains=["toy"], rate=0.5, spm_rate=0.25), FIM_IDS)
    kinds = Counter()
    while stream.epoch == 0:
        segment = stream._segment.tolist()
        kinds["none" if segment[1] != 1 else "spm" if segment[2] == 3 else "psm"] += 1
        stream._next_segment()
    # A PSM document with an empty prefix looks like SPM: one in 11 of them.
    assert abs(kinds["none"] - 1000) < 120
    assert abs(kinds["spm"] - (250 + 750 / 11)) < 90


def test_a_domain_without_documents_is_refused():
    with pytest.raises(DataError, match="domain 'toy' has no documents"):
        DomainStream(Documents([]), 0, EOD)


@pytest.mark.parametrize("change", [{"documents": 9}, {"position": 5}, {"position": -1}, {"offset": 1000}])
def test_a_cursor_of_other_data_is_refused(change):
    stream = DomainStream(numbered([3, 5]), 0, EOD)
    with pytest.raises(DataError, match="not a place in the 2 documents"):
        stream.load_state_dict(stream.state_dict() | change)
