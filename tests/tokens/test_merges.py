"""Merges learned on top of a vocabulary: those of the slow obvious way, and of `tokenizers` where it can do the same."""

import json
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers, trainers

from aurora_m.tokens.encoder import Encoder
from aurora_m.tokens.merges import learn_merges
from aurora_m.tokens.pieces import Pieces, _count_by_reference, count_pieces

from .test_encoder import ALL_TEXTS, SHIPPED, trained, wrap
from .test_tokenizer import HOSTILE

OLD = {0: "a", 1: "b", 2: "c", 3: "ab", 4: "aa"}


def pieces_of(segmented: list[tuple[list[int], int]]) -> Pieces:
    tokens = [id for ids, _ in segmented for id in ids]
    offsets = np.cumsum([0, *(len(ids) for ids, _ in segmented)])
    return Pieces(np.array(tokens, np.int32), offsets, np.array([count for _, count in segmented], np.int64))


def learn_slowly(segmented, names, wanted, first_id, forbidden):
    """Counts all pairs anew for every merge."""
    texts, names, ids, merges = [list(ids) for ids, _ in segmented], dict(names), {}, []
    parts = {id: [id] for id in names}

    def is_usable(left, right):
        name, made_of = names[left] + names[right], parts[left] + parts[right]
        return name not in forbidden and parts.get(ids.get(name), made_of) == made_of

    while len(ids) < wanted:
        counts: Counter = Counter()
        for text, (_, count) in zip(texts, segmented, strict=True):
            for pair in pairwise(text):
                counts[pair] += count
        usable = [(-count, pair) for pair, count in counts.items() if is_usable(*pair)]
        best = min(usable, default=(0, None))
        if best[0] > -2:
            break
        left, right = best[1]
        made = ids.setdefault(names[left] + names[right], first_id + len(ids))
        names[made], parts[made] = names[left] + names[right], parts[left] + parts[right]
        merges.append((left, right, made))
        for text in texts:
            at = 0
            while at + 1 < len(text):
                if (text[at], text[at + 1]) == (left, right):
                    text[at : at + 2] = [made]
                at += 1
    return merges


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.lists(st.integers(0, 4), min_size=2, max_size=24), st.integers(1, 9)), max_size=8),
    st.integers(1, 40),
)
def test_merges_are_those_of_counting_all_pairs_anew_each_time(segmented, wanted):
    forbidden = {*OLD.values(), "bab", "abc"}
    ours = learn_merges(pieces_of(segmented), OLD, wanted, 10, forbidden)
    assert ours == learn_slowly(segmented, OLD, wanted, 10, forbidden)


def test_merges_are_the_same_when_pairs_outgrow_their_tables(monkeypatch):
    segmented = [([n % 5, n % 3, n % 4, n % 5, n % 2], n % 7 + 1) for n in range(200)]
    expected = learn_merges(pieces_of(segmented), OLD, 60, 10, set())
    monkeypatch.setattr("aurora_m.tokens.merges._FIRST_ROOM", 2)
    assert learn_merges(pieces_of(segmented), OLD, 60, 10, set()) == expected
    assert len(expected) >= 60


def test_from_bytes_alone_they_are_the_merges_of_tokenizers():
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare = tokenizers.Tokenizer(models.BPE(vocab={}, merges=[]))
    bare.pre_tokenizer = byte_level
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    settings = {"special_tokens": ["<|endoftext|>"], "initial_alphabet": alphabet, "show_progress": False}
    bare.train_from_iterator([], trainers.BpeTrainer(vocab_size=257, **settings))
    theirs = json.loads(trained(ALL_TEXTS, vocab_size=257 + 200).to_str())["model"]["merges"]
    tokenizer = wrap(bare)
    vocabulary = bare.get_vocab(with_added_tokens=True)
    names = {id: name for name, id in vocabulary.items()}
    pieces = count_pieces(Encoder(tokenizer), tokenizer, ALL_TEXTS)
    merges = learn_merges(pieces, names, 200, 257, set(vocabulary))
    for left, right, made in merges:
        names[made] = names[left] + names[right]
    assert [[names[left], names[right]] for left, right, _ in merges] == theirs


@pytest.mark.parametrize("kind", SHIPPED)
def test_pieces_are_those_of_tokenizers(kind):
    pre_tokenizer, normalizer, whole = SHIPPED[kind]
    tokenizer = wrap(trained(ALL_TEXTS, pre_tokenizer, normalizer, whole))
    encoder, documents = Encoder(tokenizer), [*ALL_TEXTS, HOSTILE, "", "e\u0301e\u0301 x"]
    assert encoder.compiled is not None
    counted = [count_pieces(encoder, tokenizer, documents), _count_by_reference(tokenizer, documents)]
    ours, theirs = (sorted((piece.tolist(), count) for piece, count in zip(
        np.split(one.tokens, one.offsets[1:-1]), one.counts.tolist(), strict=True)) for one in counted)  # fmt: skip
    assert ours == theirs


def test_documents_with_an_added_token_are_left_out_and_counted():
    backend = trained(ALL_TEXTS)
    backend.add_tokens(["<|user|>"])
    tokenizer = wrap(backend)
    documents = ["one two two", "three <|user|> four"]
    for pieces in (count_pieces(Encoder(tokenizer), tokenizer, documents), _count_by_reference(tokenizer, documents)):
        assert pieces.left_out == 1
        assert pieces.counts.sum() <= 3
    assert len(count_pieces(Encoder(tokenizer), tokenizer, []).counts) == 0
