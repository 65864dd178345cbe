"""Documents are written so that equal documents give equal files."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from aurora_m.corpus import DOCUMENT_SCHEMA, documents
from aurora_m.corpus.documents import DocumentWriter, byte_lengths, filtered, text_bytes, with_column


def batch(*texts: str) -> pa.RecordBatch:
    columns = {"id": [str(i) for i in range(len(texts))], "text": texts, "domain": ["d"] * len(texts)}
    columns |= {"source": ["s"] * len(texts), "meta": ["{}"] * len(texts)}
    arrays = [pa.array(columns.get(field.name, [None] * len(texts)), field.type) for field in DOCUMENT_SCHEMA]
    return pa.RecordBatch.from_arrays(arrays, schema=DOCUMENT_SCHEMA)


def test_lengths_are_bytes_and_null_is_less_than_empty():
    assert byte_lengths(pa.array(["ä", "", None], pa.large_string())).tolist() == [2, 0, -1]
    assert text_bytes(batch("ä", "bc")) == 4


def test_a_batch_of_which_nothing_goes_is_not_copied():
    documents = batch("a", "b")
    assert filtered(documents, np.array([True, True])) is documents
    assert filtered(documents, np.array([False, True])).column("text").to_pylist() == ["b"]


def test_a_column_is_replaced_or_added():
    texts = pa.array(["x"], pa.large_string())
    assert with_column(batch("a"), "text", texts).column("text").to_pylist() == ["x"]
    added = with_column(batch("a"), "lang_score", pa.array([0.5], pa.float32()))
    assert added.schema.names == [*DOCUMENT_SCHEMA.names, "lang_score"]


def test_what_is_written_comes_back(tmp_path):
    with DocumentWriter(tmp_path, "train", DOCUMENT_SCHEMA) as writer:
        writer.write(batch("a", "ä"))
        writer.write(batch())
        writer.write(batch("c"))
    assert (writer.documents, writer.bytes) == (3, 4)
    table = pq.read_table(tmp_path / "train-00000.parquet")
    assert table.schema.equals(DOCUMENT_SCHEMA)
    assert table.column("text").to_pylist() == ["a", "ä", "c"]


def test_there_is_a_file_even_of_nothing(tmp_path):
    with DocumentWriter(tmp_path, "heldout", DOCUMENT_SCHEMA):
        pass
    assert pq.read_table(tmp_path / "heldout-00000.parquet").num_rows == 0


def test_large_splits_are_spread_over_files(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "_ROW_GROUP_BYTES", 10)
    monkeypatch.setattr(documents, "_FILE_BYTES", 25)
    with DocumentWriter(tmp_path, "train", DOCUMENT_SCHEMA) as writer:
        for i in range(9):
            writer.write(batch(f"text{i}"))
    files = sorted(tmp_path.glob("train-*.parquet"))
    assert [pq.read_metadata(file).num_rows for file in files] == [6, 3]
    texts = [text for file in files for text in pq.read_table(file).column("text").to_pylist()]
    assert texts == [f"text{i}" for i in range(9)]


def test_equal_batches_give_equal_bytes(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        with DocumentWriter(tmp_path / name, "train", DOCUMENT_SCHEMA) as writer:
            writer.write(batch("a", "b"))
    assert (tmp_path / "one/train-00000.parquet").read_bytes() == (tmp_path / "two/train-00000.parquet").read_bytes()
