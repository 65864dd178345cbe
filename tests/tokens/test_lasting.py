"""Documents keep their numbers when shards are written anew; what was held out stays out; cursors go on."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurora_m.tokens import DomainTokens, ShardWriter, TrainBatches
from aurora_m.tokens.lasting import LastingDocuments, Renumbered, align, keep_heldout, renumber
from aurora_m.workspace import DataError

from .toy import EOD


def write(tokens, names, split="train", shard_tokens=20):
    """Shards of documents by name: "b7" has the tokens 10 + 7, source b."""
    shutil.rmtree(tokens / "toy", ignore_errors=True) if split == "train" else None
    with ShardWriter(tokens / "toy", split, 1000, shard_tokens) as writer:
        for name in names:
            number = int(name[1:])
            text = [10 + number] * (number % 5 + 1)
            writer.append([*text, EOD], id=name, source=name[0], lang=None, size=9)


def names_of(documents: LastingDocuments) -> list[str | None]:
    absent = np.zeros(documents.documents, bool) if documents.absent is None else documents.absent
    return [None if absent[number] else documents.ids([number])[0] for number in range(documents.documents)]


def slow_align(known, present, held_out):
    identities, places = list(known), [-1] * len(known)
    for place, one in enumerate(present):
        if one in held_out:
            continue
        if one in known:
            places[known.index(one)] = place
        else:
            identities.append(one)
            places.append(place)
    return identities, places, sum(one in held_out for one in present)


some = st.lists(st.integers(0, 30), unique=True, max_size=20)


@settings(max_examples=200, deadline=None)
@given(some, some.filter(bool), some)
def test_aligning_equals_the_slow_way(known, present, held_out):
    arrays = [np.array(one, np.uint64) for one in (known, present, held_out)]
    identities, places, count = align(*arrays)
    assert (identities.tolist(), places.tolist(), count) == slow_align(known, present, held_out)


def test_documents_keep_their_numbers_through_many_edits(tmp_path):
    tokens, kept = tmp_path / "tokens", tmp_path / "train"
    write(tokens, ["a1", "a2", "a3", "a4"])
    write(tokens, ["a8", "a9"], "heldout")
    assert renumber(tokens, "toy", kept, "A" * 64) is None
    keep_heldout(tokens, "toy", kept)
    assert names_of(LastingDocuments(tokens, "toy", kept)) == ["a1", "a2", "a3", "a4"]
    # another source in front, and one document changes place with a held-out one
    write(tokens, ["b1", "a1", "b2", "a9", "a3", "a4", "b2"])
    write(tokens, ["a2", "a8"], "heldout")
    keep_heldout(tokens, "toy", kept)
    assert renumber(tokens, "toy", kept, "B" * 64) == Renumbered(joined=3, gone=1, held_out=1)
    assert renumber(tokens, "toy", kept, "B" * 64) is None
    documents = LastingDocuments(tokens, "toy", kept)
    assert names_of(documents) == ["a1", None, "a3", "a4", "b1", "b2", "b2"]
    assert documents.document(4).tolist() == [11, 11, EOD] and documents.tokens == 3 + 5 + 6 + 3 + 4 + 4
    assert documents.ids([5, 0, 3]) == ["b2", "a1", "a4"]
    # the source goes and comes back: the same numbers
    write(tokens, ["a4", "a3", "a2", "a1"])
    assert renumber(tokens, "toy", kept, "C" * 64) == Renumbered(0, 3, 0)
    assert names_of(LastingDocuments(tokens, "toy", kept)) == ["a1", "a2", "a3", "a4", None, None, None]
    write(tokens, ["b2", "b1", "a4", "a3", "b2", "a2", "a1", "c1"])
    assert renumber(tokens, "toy", kept, "D" * 64) == Renumbered(1, 0, 0)
    assert names_of(LastingDocuments(tokens, "toy", kept)) == ["a1", "a2", "a3", "a4", "b1", "b2", "b2", "c1"]
    assert [path.name for path in sorted((kept / "documents" / "toy").iterdir())] == [
        "identities-DDDDDDDDDDDD.npy", "numbering.json", "places-DDDDDDDDDDDD.npy",
    ]  # fmt: skip
    assert DomainTokens(kept / "heldout", "toy", "heldout").ids([0, 1]) == ["a8", "a9"]


def test_a_cursor_goes_on_over_shards_that_were_written_anew(tmp_path):
    tokens, kept = tmp_path / "tokens", tmp_path / "train"
    old = [f"a{number}" for number in range(30)]
    write(tokens, old)
    renumber(tokens, "toy", kept, "A" * 64)

    def batches():
        return TrainBatches({"toy": LastingDocuments(tokens, "toy", kept)}, {"toy": 1.0}, 10, 1, EOD)

    first = batches()
    seen = [first.next_batch(1).documents[0] for _ in range(6)]
    state = json.loads(json.dumps(first.state_dict()))
    write(tokens, [f"b{number}" for number in range(15)] + old[::-1])
    assert renumber(tokens, "toy", kept, "B" * 64) == Renumbered(15, 0, 0)
    second = batches()
    second.load_state_dict(state)
    while second.streams["toy"].epoch == 0:
        seen.append(second.next_batch(1).documents[0])
    visited = [number for numbers in seen for number in numbers]
    once = [number for place, number in enumerate(visited) if place == 0 or visited[place - 1] != number]
    assert sorted(once[:45]) == list(range(45))


def test_a_domain_that_goes_keeps_its_cursor_for_its_return(tmp_path):
    from .test_batches import domains_of

    both = TrainBatches(domains_of("a", "b"), {"a": 0.5, "b": 0.5}, 10, 1, EOD)
    both.next_batch(8)
    cursor = both.streams["b"].state_dict()
    alone = TrainBatches(domains_of("a"), {"a": 1.0}, 10, 1, EOD)
    alone.load_state_dict(json.loads(json.dumps(both.state_dict())) | {"mixture": alone._mixture.state_dict()})
    alone.next_batch(4)
    again = TrainBatches(domains_of("a", "b"), {"a": 0.5, "b": 0.5}, 10, 1, EOD)
    again.next_batch(3)
    again.load_state_dict(json.loads(json.dumps(alone.state_dict())))
    assert again.streams["b"].state_dict() == cursor


def test_lost_numbers_are_said(tmp_path):
    tokens, kept = tmp_path / "tokens", tmp_path / "train"
    write(tokens, ["a1", "a2"])
    renumber(tokens, "toy", kept, "A" * 64)
    write(tokens, ["a1", "a2", "a3"])
    with pytest.raises(DataError, match="3 documents, and 2 when the run began"):
        LastingDocuments(tokens, "toy", kept)
    renumber(tokens, "toy", kept, "B" * 64)
    (kept / "documents" / "toy" / "places-BBBBBBBBBBBB.npy").unlink()
    with pytest.raises(DataError, match="it numbers the run's documents"):
        LastingDocuments(tokens, "toy", kept)
