"""Documents with weights: visited floor or ceil of their weight times an epoch, in any pieces and after any stop."""

import json
import re
from collections import Counter
from itertools import groupby

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurora_m.tokens import DomainStream, DomainTokens, ShardWriter
from aurora_m.tokens.shards import docs_table
from aurora_m.tokens.weighting import document_weights, rounds_of, visited
from aurora_m.workspace import DataError

from .test_stage import run
from .toy import EOD, Documents, texts, write_curated

weight = st.one_of(st.sampled_from([0.0, 1.0, 2.0, 0.5]), st.floats(0, 6, width=32))
NAMES = (1, "toy")


@settings(max_examples=60, deadline=None)
@given(st.lists(weight, min_size=1, max_size=60), st.integers(0, 5))
def test_an_epoch_visits_a_document_floor_or_ceil_of_its_weight_times(weights, epoch):
    weights = np.array(weights, np.float32)
    rounds, numbers = rounds_of(weights), np.arange(len(weights))
    visits = sum(visited(weights, numbers, epoch * rounds + turn, rounds, NAMES).astype(int) for turn in range(rounds))
    assert (visits >= np.floor(weights)).all() and (visits <= np.ceil(weights)).all()
    # A pure function of the document: others beside it change nothing.
    some = numbers[::2]
    alone, together = (visited(weights[part], part, epoch, rounds, NAMES) for part in (some, numbers))
    assert np.array_equal(alone, together[::2])


def test_fractions_are_met_and_repeats_are_spread_over_the_epoch():
    weights = np.full(20_000, 2.25, np.float32)
    turns = np.array([visited(weights, np.arange(20_000), turn, 3, NAMES) for turn in range(30)])
    assert turns.mean() * 3 == pytest.approx(2.25, abs=0.01)
    assert turns.mean(axis=1) * 3 == pytest.approx([2.25] * 30, abs=0.05)  # every round alike
    few = np.full(1000, 2, np.float32)
    rounds = np.array([visited(few, np.arange(1000), turn, 8, NAMES) for turn in range(8)])
    first, last = rounds.argmax(axis=0), 7 - rounds[::-1].argmax(axis=0)
    assert (rounds.sum(axis=0) == 2).all() and (last - first == 4).all()


def weighted(weights, length: int = 3) -> Documents:
    texts = [[10 + number] * length for number in range(len(weights))]
    return Documents(texts, weights=np.array(weights, np.float32))


def visits_of(stream: DomainStream, epochs: int, rounds: int) -> Counter:
    found = Counter()
    while stream.epoch < epochs * rounds:
        found[stream._number] += 1
        stream._next_segment()
    return found


def test_a_stream_reads_documents_by_their_weights_and_counts_true_epochs():
    weights = [0, 0.5, 1, 2, 3.5, 1]
    documents = weighted(weights)
    stream = DomainStream(documents, 1, EOD)
    found = visits_of(stream, 400, 4)
    assert found[0] == 0 and [found[2], found[3], found[5]] == [400, 800, 400]
    assert found[1] == pytest.approx(200, abs=50) and found[4] == pytest.approx(1400, abs=50)
    stream = DomainStream(documents, 1, EOD)
    for _ in range(100):
        stream.next(32)
    assert documents.tokens_per_epoch == 32 and stream.epochs == 100
    assert stream.epoch == pytest.approx(400, abs=8)  # rounds


@settings(max_examples=40, deadline=None)
@given(
    st.lists(weight, min_size=3, max_size=12), st.lists(st.integers(1, 30), min_size=1, max_size=8), st.integers(0, 3)
)
def test_a_weighted_stream_resumes_where_it_was(weights, windows, seed):
    documents = weighted([*weights, 1.0])
    stream, whole = DomainStream(documents, seed, EOD), DomainStream(documents, seed, EOD)
    joined = whole.next(sum(windows))
    pieces = []
    for length in windows:
        resumed = DomainStream(documents, seed, EOD)
        resumed.load_state_dict(stream.state_dict())
        pieces.append(resumed.next(length))
        stream.next(length)
    assert np.concatenate([piece[0] for piece in pieces]).tolist() == joined[0].tolist()
    read = [number for number, _ in groupby(number for piece in pieces for number in piece[3])]
    assert read == [number for number, _ in groupby(joined[3])]


def test_weights_of_one_are_the_plain_stream():
    plain, ones = Documents([[10 + n] * 5 for n in range(40)]), weighted([1.0] * 40, 5)
    streams = [DomainStream(documents, 3, EOD) for documents in (plain, ones)]
    for _ in range(30):
        ours, theirs = (stream.next(33) for stream in streams)
        assert np.array_equal(ours[0], theirs[0])


def test_documents_that_might_never_be_read_are_refused():
    with pytest.raises(DataError, match="weights of its documents come to 0.5, less than one document an epoch"):
        DomainStream(weighted([0.5, 0]), 1, EOD)
    stream = DomainStream(weighted([0, 1, 1]), 1, EOD)
    stream.quarantine([1])
    with pytest.raises(DataError, match="come to 0, less than"):
        stream.quarantine([2])


# ---- from curated documents to shards


def batch_of(**columns) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"id": ["a", "b", "c"], **columns})


def test_weights_are_the_product_of_columns_and_meta():
    batch = batch_of(weight=[2.0, None, 0.5], meta=['{"weight": "3"}', "{}", '{"weight": 4, "x": 1}'])
    assert document_weights(batch, ["weight", "meta.weight"]).tolist() == [6, 1, 2]
    assert document_weights(batch, ["weight", "upsampling_weight"]).tolist() == [2, 1, 0.5]
    assert document_weights(batch, []).tolist() == [1, 1, 1]


@pytest.mark.parametrize("wrong", ["heavy", -1, float("nan"), 1e9])
def test_a_weight_that_is_none_is_refused_by_its_document(wrong):
    weights = ["1", wrong, "1"] if isinstance(wrong, str) else [1.0, wrong, 1.0]
    with pytest.raises(
        DataError, match=f"document b: weight is .*{re.escape(str(wrong))}.*, expected a weight of 0 to"
    ):
        document_weights(batch_of(weight=weights), ["weight"])


def write(folder, weights, shard_tokens=30):
    with ShardWriter(folder / "toy", "train", 100, shard_tokens) as writer:
        count = len(weights)
        columns = [[f"d{n}" for n in range(count)], ["s"] * count, [None] * count, [9] * count, [5] * count]
        writer.extend(np.arange(5 * count) % 90, docs_table(columns, np.array(weights, np.float32)))
    return writer


def test_weights_lie_beside_the_shards_that_have_them(tmp_path):
    writer = write(tmp_path, [1, 1, 1, 1, 1, 1, 0, 2.5, 1])  # six documents a shard
    assert (writer.weighted, writer.unread, writer.tokens_per_epoch) == (2, 1, 47.5)
    assert [path.name for path in (tmp_path / "toy").glob("*.npy")] == ["train-00001.weights.npy"]
    tokens = DomainTokens(tmp_path, "toy")
    assert tokens.weights is not None and tokens.weights.tolist() == [1, 1, 1, 1, 1, 1, 0, 2.5, 1]
    assert tokens.tokens_per_epoch == 47.5
    write(tmp_path, [1] * 9)
    tokens = DomainTokens(tmp_path, "toy")
    assert tokens.weights is None and tokens.tokens_per_epoch == 45 and not list((tmp_path / "toy").glob("*.npy"))


def test_damaged_weights_are_named(tmp_path):
    write(tmp_path, [2] * 6)
    path = tmp_path / "toy" / "train-00000.weights.npy"
    np.save(path, np.ones(5, np.float32))
    with pytest.raises(DataError, match="does not hold a weight for each of 6 documents"):
        DomainTokens(tmp_path, "toy")
    path.write_bytes(b"\x93NUMPY")
    with pytest.raises(DataError, match="weights.npy cannot be read"):
        DomainTokens(tmp_path, "toy")


@pytest.mark.parametrize("shuffle", [False, True])
def test_the_tokenize_stage_hands_weights_on(tmp_path, shuffle):
    curated = tmp_path / "curated"
    write_curated(curated, "english", texts("english", 40))
    write_curated(curated, "english", texts("english", 8, seed=1), split="heldout")
    for path in (curated / "english").glob("*.parquet"):
        table = pq.read_table(path)
        given = [0.0, 2.5] + [None] * (len(table) - 2)
        meta = [json.dumps({"weight": "2"} if row == 1 else {}) for row in range(len(table))]
        table = table.set_column(table.schema.get_field_index("meta"), "meta", pa.array(meta))
        pq.write_table(table.append_column("weight", pa.array(given)), path)
    recipe = {"train": {"vocab_size": 400, "domains": ["english"]}, "shuffle": shuffle}
    counts = run(curated, tmp_path / "out", recipe)["domains"]["english"]
    tokens = DomainTokens(tmp_path / "out", "english")
    assert tokens.weights is not None
    by_id = dict(zip(tokens.ids(range(40)), tokens.weights.tolist(), strict=True))
    assert (by_id.pop("train0/0"), by_id.pop("train0/1")) == (0, 5) and set(by_id.values()) == {1}
    assert (counts["train"]["weighted_documents"], counts["train"]["unread_documents"]) == (2, 1)
    assert counts["train"]["tokens_per_epoch"] == round(tokens.tokens_per_epoch)
    assert "tokens_per_epoch" not in counts["heldout"]
    assert DomainTokens(tmp_path / "out", "english", "heldout").weights is None
    run(curated, tmp_path / "plain", recipe | {"weights": []})
    files = ("train-00000.bin", "train-00000.idx", "train-00000.docs.parquet")
    for name in files:
        assert (tmp_path / "out" / "english" / name).read_bytes() == (
            tmp_path / "plain" / "english" / name
        ).read_bytes()
    assert DomainTokens(tmp_path / "plain", "english").weights is None
