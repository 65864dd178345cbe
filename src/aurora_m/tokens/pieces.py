"""The distinct pieces of texts, as often as they come, and the tokens a tokenizer makes of each.

Merges stay within a piece, so a vocabulary is learned from pieces alone, and each need be looked at but once.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aurora_m.corpus import text_buffers

from .bpe import Scratch, cut_pieces, merge_pieces
from .encoder import CompiledEncoder, Encoder, byte_of_character
from .tokenizer import Tokenizer

_CHUNK_BYTES = 8_000_000


class Pieces(NamedTuple):
    """Distinct pieces of two tokens or more: `tokens` int32, one piece after another; `offsets` int64[pieces + 1]; and
    `counts` int64[pieces], how often each comes. `left_out`: documents passed over, which hold an added token."""

    tokens: np.ndarray
    offsets: np.ndarray
    counts: np.ndarray
    left_out: int = 0


def count_pieces(encoder: Encoder, tokenizer: Tokenizer, texts: Iterable[str]) -> Pieces:
    """The pieces of texts: by the compiled loops where the encoder has them, else by `tokenizers`, many times slower.

    The order of pieces is not defined; nothing may depend on it.
    """
    if encoder.compiled is None:
        return _count_by_reference(tokenizer, texts)
    tables: list[pa.Table] = []
    left_out = 0
    for chunk in _chunks(texts):
        table, left = _count_chunk(encoder.compiled, chunk)
        left_out += left
        tables.append(table)
        if len(tables) > 8:
            tables = [_summed(tables)]
    if not tables:
        return Pieces(np.empty(0, np.int32), np.zeros(1, np.int64), np.empty(0, np.int64))
    together = _summed(tables)
    return _encode_pieces(encoder.compiled, together, left_out)


def _chunks(texts: Iterable[str]) -> Iterator[pa.LargeStringArray]:
    held: list[str] = []
    size = 0
    for text in texts:
        held.append(text)
        size += len(text)
        if size > _CHUNK_BYTES:
            yield pa.array(held, pa.large_string())
            held, size = [], 0
    if held:
        yield pa.array(held, pa.large_string())


def _count_chunk(compiled: CompiledEncoder, texts: pa.LargeStringArray) -> tuple[pa.Table, int]:
    texts, left = compiled.prepared(texts)
    if left.any():
        texts = pa.array(texts.filter(pa.array(~left)).to_pylist(), pa.large_string())
    data, offsets = text_buffers(texts)
    # Texts lie one after another and pieces leave nothing out, so the ends of pieces are an Arrow array's offsets.
    ends = np.zeros(int(offsets[-1]) + 1, dtype=np.int64)
    count = cut_pieces(data, offsets, compiled.pattern, ends[1:])
    buffers = [None, pa.py_buffer(ends[: count + 1]), pa.py_buffer(data)]
    counted = pc.call_function("value_counts", [pa.Array.from_buffers(pa.large_binary(), count, buffers)])
    names, counts = counted.field("values"), counted.field("counts")
    return pa.table({"piece": names, "count": counts}), int(left.sum())


def _summed(tables: list[pa.Table]) -> pa.Table:
    table = pa.concat_tables(tables)
    if len(tables) == 1:
        return table
    return table.group_by("piece").aggregate([("count", "sum")]).rename_columns(["piece", "count"])


def _encode_pieces(compiled: CompiledEncoder, table: pa.Table, left_out: int) -> Pieces:
    names = pc.cast(table["piece"], pa.large_binary()).combine_chunks()
    # Pieces are cut between characters, so their bytes are text.
    data, offsets = text_buffers(
        pa.Array.from_buffers(pa.large_string(), len(names), names.buffers(), offset=names.offset)
    )
    scratch, size = Scratch(), int(offsets[-1] - offsets[0])
    scratch.make_room(int(np.diff(offsets).max(initial=0)), size, len(names))
    lengths = np.empty(len(names), dtype=np.int64)
    total = merge_pieces(data, offsets, compiled.tables, scratch.room, scratch.out, lengths)
    kept = lengths > 1
    tokens = scratch.out[:total][np.repeat(kept, lengths)]
    return Pieces(tokens, _offsets(lengths[kept]), table["count"].to_numpy()[kept], left_out)


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _count_by_reference(tokenizer: Tokenizer, texts: Iterable[str]) -> Pieces:
    backend, letters = tokenizer.backend, byte_of_character()
    cut_out = [token.content for token in backend.get_added_tokens_decoder().values() if not token.special]
    counted: Counter[str] = Counter()
    left_out = 0
    for text in texts:
        normal = backend.normalizer.normalize_str(text) if backend.normalizer else text
        if any(added in text or added in normal for added in cut_out):
            left_out += 1
            continue
        counted.update(piece for piece, _ in backend.pre_tokenizer.pre_tokenize_str(normal))
    tokens: list[int] = []
    lengths, counts = [], []
    for piece, count in counted.items():
        ids = [token.id for token in backend.model.tokenize(piece)] if set(piece) <= letters.keys() else []
        if len(ids) > 1:
            tokens += ids
            lengths.append(len(ids))
            counts.append(count)
    made = np.array(tokens, dtype=np.int32), _offsets(np.array(lengths, dtype=np.int64)), np.array(counts, np.int64)
    return Pieces(*made, left_out)
