"""Files come in bounded blocks, whatever is in them."""

import gzip
import tracemalloc
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from aurora_m.corpus import streams
from aurora_m.corpus.streams import SourceFile, line_blocks, read_whole
from aurora_m.workspace import DataError


def source_file(path: Path) -> SourceFile:
    return SourceFile(str(path), path.stat().st_size)


def written(path: Path, content: bytes) -> SourceFile:
    packed = {".gz": gzip.compress, ".zst": zstandard.compress}.get(path.suffix, bytes)(content)
    path.write_bytes(packed)
    return source_file(path)


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
def test_lines_come_back_whole_and_numbered(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(streams, "BLOCK_BYTES", 100)
    lines = [b"%d:" % i + b"x" * (i % 70) for i in range(1, 200)]
    blocks = list(line_blocks(written(tmp_path / f"a{suffix}", b"\n".join(lines)), 1000))
    assert b"".join(block.data for block in blocks).split(b"\n") == lines
    assert all(block.data.startswith(b"%d:" % block.first_line) for block in blocks)
    assert sum(block.compressed_bytes for block in blocks) == (tmp_path / f"a{suffix}").stat().st_size


@given(lines=st.lists(st.integers(0, 60)), most=st.integers(1, 40), ends=st.booleans())
def test_only_overlong_lines_are_passed_over(tmp_path_factory, lines, most, ends):
    path = tmp_path_factory.mktemp("lines") / "a.jsonl"
    content = [b"x" * length + b"\n" for length in lines]
    if content and not ends:
        content[-1] = content[-1][:-1]
    blocks = list(line_blocks(written(path, b"".join(content)), most))
    assert b"".join(block.data for block in blocks) == b"".join(line for line in content if len(line) <= most)
    assert [size for block in blocks for size in block.skipped] == [len(line) for line in content if len(line) > most]


def test_a_200_megabyte_line_is_passed_over_in_bounded_memory(tmp_path):
    path = tmp_path / "long.jsonl.zst"
    with path.open("wb") as raw, zstandard.ZstdCompressor().stream_writer(raw) as packed:
        packed.write(b'{"text": "first"}\n{"text": "')
        for i in range(200):
            packed.write(bytes([65 + i % 26, 66, 67 + i % 7, 10 + 60]) * 250_000)
        packed.write(b'"}\n{"text": "last"}\n')
    tracemalloc.start()
    blocks = list(line_blocks(source_file(path), 16_000_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert b"".join(block.data for block in blocks) == b'{"text": "first"}\n{"text": "last"}\n'
    assert [size for block in blocks for size in block.skipped] == [200_000_013]
    assert blocks[-1].first_line == 3 or blocks[-1].data == b""
    assert peak < 64_000_000


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_truncated_file_is_named_with_what_was_read(tmp_path, suffix):
    path = tmp_path / f"cut.jsonl{suffix}"
    written(path, b"".join(b"%d %d\n" % (i, i * 7919 % 104729) for i in range(1_000_000)))
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(DataError, match=rf"cut\.jsonl{suffix} is cut off or damaged: .* \d{{6}} lines .* were read"):
        list(line_blocks(source_file(path), 1000))


def test_what_is_no_archive_is_named(tmp_path):
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(b"this is no archive")
    with pytest.raises(DataError, match="a.jsonl.zst is cut off or damaged"):
        list(line_blocks(source_file(path), 1000))


def test_a_decompression_bomb_is_not_read_to_its_end(tmp_path):
    path = tmp_path / "bomb.jsonl.zst"
    with path.open("wb") as raw, zstandard.ZstdCompressor().stream_writer(raw) as packed:
        for _ in range(600):
            packed.write(b"a" * 999_999 + b"\n")
    with pytest.raises(DataError, match="decompression bomb"):
        list(line_blocks(source_file(path), 64_000_000))


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path):
    (block,) = line_blocks(written(tmp_path / "a.jsonl", b"\xef\xbb\xbf{}\n"), 1000)
    assert block.data == b"{}\n"


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_an_empty_file_has_no_blocks(tmp_path, suffix):
    assert list(line_blocks(written(tmp_path / f"a.jsonl{suffix}", b""), 1000)) == []
    (tmp_path / f"b.jsonl{suffix}").write_bytes(b"")
    assert list(line_blocks(source_file(tmp_path / f"b.jsonl{suffix}"), 1000)) == []


def test_a_large_array_is_refused_with_the_way_out(tmp_path):
    with pytest.raises(DataError, match="one object per line"):
        read_whole(written(tmp_path / "a.json", b"[" + b"1," * 1000 + b"1]"), 1000)
