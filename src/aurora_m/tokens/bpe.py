"""Byte-level BPE in compiled loops: pieces cut, looked up among the pieces seen, else merged by rank; exact.

A piece is cut off (pretokens.py), looked up in a cache of pieces and their ids, and merged only where it is new. The
merging is that of `tokenizers`: of all neighbouring pairs the one of lowest rank, the leftmost first, until no pair is
known. Short pieces do it by looking through all pairs, long ones with a heap, so that time is n log n at worst.

Pairs lie in an open hash table of 64-bit words: 21 bits of the left id, 21 of the right, 22 of the rank. The cache has
rows of 64 bytes, one line of the processor's cache; a row that is needed by another piece is overwritten, so memory is
bounded, and what is in it never changes an id.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from aurora_m.workspace import kernel

from .pretokens import piece_end

NO_RANK = 2**31 - 1
_ID_BITS, _RANK_BITS = 21, 22
MOST_IDS, MOST_MERGES = 2**_ID_BITS, 2**_RANK_BITS

_EMPTY = np.uint64(2**64 - 1)
_MIX_1, _MIX_2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)
_CACHE_BITS = 16  # rows of the cache: 4 MB a thread
_KEY_BYTES = 32  # of a piece in its row: longer ones are merged anew
_INLINE_IDS = 6  # in the row itself; more go to `spilled`
_SPILLED_IDS = 2**19
_ABOUT = 4  # the column of a row that says its bytes and its ids, after its key
_WAYS_BITS = 2
_WAYS = 2**_WAYS_BITS  # neighbouring rows a piece may lie in
_SHORT = 64  # bytes of a piece up to which looking through all pairs is faster than a heap


class Merges(NamedTuple):
    """The tables of one tokenizer, shared by all threads."""

    byte_ids: np.ndarray  # int32[256]: the id of each byte
    byte_ranks: np.ndarray  # int32[65536]: the rank of each pair of bytes, NO_RANK where it is not merged
    merged: np.ndarray  # int32[merges]: the id that a rank's pair becomes
    pairs: np.ndarray  # uint64[power of two]: the hash table, _EMPTY where there is nothing
    whole_slots: np.ndarray  # int32[power of two]: ids of pieces that are taken whole (ignore_merges), -1 where none
    whole_bytes: np.ndarray  # uint8: their bytes, one after another
    whole_offsets: np.ndarray  # int64[vocabulary + 1] by id


class Room(NamedTuple):
    """What one thread writes to."""

    cache: np.ndarray  # uint64[rows, 8]: four words of the piece, _ABOUT, ids two to a word or a place in `spilled`
    spilled: np.ndarray  # int32: ids of pieces that have more than a row holds
    spilled_end: np.ndarray  # int64[1]
    links: np.ndarray  # int32[4, longest text]: ids, ranks, place before, place after, while a piece is merged
    heap: np.ndarray  # uint64[3 * longest text]


class Scratch:
    """A thread's `room`, the cache of pieces and arrays to merge in, and `out`, for ids; they grow with the texts."""

    def __init__(self) -> None:
        self.room = Room(
            np.zeros((2**_CACHE_BITS, 8), dtype=np.uint64),
            np.empty(_SPILLED_IDS, dtype=np.int32),
            np.zeros(1, dtype=np.int64),
            np.empty((4, 0), dtype=np.int32),
            np.empty(0, dtype=np.uint64),
        )
        self.out = np.empty(0, dtype=np.int32)

    def make_room(self, longest: int, all_bytes: int, texts: int) -> None:
        """Room for texts of so many bytes, the longest and all together; what is not touched takes no memory."""
        needed = all_bytes + texts + _INLINE_IDS
        if needed > len(self.out):
            self.out = np.empty(needed, dtype=np.int32)
        if longest > self.room.links.shape[1]:
            links, heap = np.empty((4, longest), dtype=np.int32), np.empty(3 * longest, dtype=np.uint64)
            self.room = self.room._replace(links=links, heap=heap)


def make_merges(
    byte_ids: Sequence[int], merges: Sequence[tuple[int, int, int]], whole: dict[bytes, int] | None
) -> Merges:
    """Tables from the ids of the 256 bytes and the merges (left, right, merged id) in the order of their ranks.

    Of a pair named twice the later rank holds, as in `tokenizers`. `whole` are the pieces taken whole, if any are.
    """
    ranks = {(left, right): rank for rank, (left, right, _) in enumerate(merges)}
    names = np.array([*ranks], dtype=np.int64).reshape(-1, 2)
    values = np.array([*ranks.values()], dtype=np.int64)
    pairs = np.full(_power_of_two(2 * len(ranks) + 2), _EMPTY)
    _fill_pairs(pairs, names[:, 0].copy(), names[:, 1].copy(), values)
    byte_ranks = np.full(2**16, NO_RANK, dtype=np.int32)
    number_of = {id: byte for byte, id in enumerate(byte_ids)}
    for (left, right), rank in ranks.items():
        if left in number_of and right in number_of:
            byte_ranks[number_of[left] << 8 | number_of[right]] = rank
    merged = np.array([merge[2] for merge in merges], dtype=np.int32)
    return Merges(np.array(byte_ids, dtype=np.int32), byte_ranks, merged, pairs, *_whole_tables(whole or {}))


def _whole_tables(whole: dict[bytes, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    texts = {id: text for text, id in whole.items()}
    ordered = [texts.get(id, b"") for id in range(max(texts, default=-1) + 1)]
    offsets = np.cumsum([0, *map(len, ordered)], dtype=np.int64)
    # Room behind the last, for reading words of eight bytes.
    content = np.frombuffer(b"".join(ordered) + bytes(_KEY_BYTES), dtype=np.uint8)
    slots = np.full(_power_of_two(2 * len(whole) + 2), -1, dtype=np.int32)
    _fill_whole(slots, content, offsets)
    return slots, content, offsets


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()


@kernel
def _load_word(data, i):
    """The eight bytes from i on as a little-endian number; the compiler makes one instruction of it."""
    value = np.uint64(data[np.uint64(i)])
    for at in (1, 2, 3, 4, 5, 6, 7):
        value |= np.uint64(data[np.uint64(i) + np.uint64(at)]) << np.uint64(8 * at)
    return value


@kernel
def _word(data, i, end):
    """The bytes from i on, at most eight and none from `end` on, as a number; the rest of it is 0."""
    if end >= i + 8:
        return _load_word(data, i)
    if i + 8 <= len(data):
        return _load_word(data, i) & ((np.uint64(1) << np.uint64(8 * (end - i))) - np.uint64(1))
    value = np.uint64(0)
    for at in range(end - 1, i - 1, -1):
        value = (value << np.uint64(8)) | np.uint64(data[np.uint64(at)])
    return value


@kernel
def _mixed(value):
    value *= _MIX_1
    value ^= value >> np.uint64(32)
    value *= _MIX_2
    return value ^ (value >> np.uint64(29))


@kernel
def _pair_name(left, right):
    return (np.uint64(left) << np.uint64(_ID_BITS)) | np.uint64(right)


@kernel
def _fill_pairs(pairs, lefts, rights, ranks):
    mask = np.uint64(len(pairs) - 1)
    for number in range(len(lefts)):
        name = _pair_name(lefts[number], rights[number])
        slot = _mixed(name) & mask
        while pairs[slot] != _EMPTY:
            slot = (slot + np.uint64(1)) & mask
        pairs[slot] = (name << np.uint64(_RANK_BITS)) | np.uint64(ranks[number])


@kernel
def _rank(pairs, left, right):
    """The rank of a pair, NO_RANK where it is not merged."""
    name = _pair_name(left, right)
    mask = np.uint64(len(pairs) - 1)
    slot = _mixed(name) & mask
    while True:
        entry = pairs[slot]
        # The name of no pair is all ones: ids are below MOST_IDS - 1.
        if entry >> np.uint64(_RANK_BITS) == name:
            return np.int32(entry & np.uint64(MOST_MERGES - 1))
        if entry == _EMPTY:
            return np.int32(NO_RANK)
        slot = (slot + np.uint64(1)) & mask


@kernel
def _hash_bytes(data, i, end):
    value = np.uint64(end - i)
    while i < end:
        value = _mixed(value ^ _word(data, i, end))
        i += 8
    return value


@kernel
def _fill_whole(slots, content, offsets):
    mask = np.uint64(len(slots) - 1)
    for id in range(len(offsets) - 1):
        if offsets[id + 1] > offsets[id]:
            slot = _hash_bytes(content, offsets[id], offsets[id + 1]) & mask
            while slots[slot] >= 0:
                slot = (slot + np.uint64(1)) & mask
            slots[slot] = id


@kernel
def _whole_id(slots, content, offsets, data, i, end):
    """The id of a piece that is in the vocabulary as it is, else -1."""
    mask = np.uint64(len(slots) - 1)
    slot = _hash_bytes(data, i, end) & mask
    while slots[slot] >= 0:
        id = slots[slot]
        begin = offsets[id]
        if offsets[id + 1] - begin == end - i:
            at = np.int64(0)
            while i + at < end and _word(data, i + at, end) == _word(content, begin + at, offsets[id + 1]):
                at += 8
            if i + at >= end:
                return np.int64(id)
        slot = (slot + np.uint64(1)) & mask
    return np.int64(-1)


@kernel
def _merge_short(data, i, end, tables, ids, ranks, out, n):
    """Merges by looking through all pairs for the lowest rank; the number of ids after those of this piece."""
    count = end - i
    for at in range(count):
        ids[np.uint64(at)] = tables.byte_ids[data[np.uint64(i + at)]]
    for at in range(count - 1):
        ranks[np.uint64(at)] = tables.byte_ranks[
            (np.int64(data[np.uint64(i + at)]) << 8) | np.int64(data[np.uint64(i + at + 1)])
        ]
    while count > 1:
        lowest = ranks[0]
        for at in range(1, count - 1):
            lowest = min(lowest, ranks[np.uint64(at)])
        if lowest == NO_RANK:
            break
        place = np.int64(0)
        while ranks[np.uint64(place)] != lowest:
            place += 1
        ids[np.uint64(place)] = tables.merged[np.uint64(lowest)]
        count -= 1
        for at in range(place + 1, count):
            ids[np.uint64(at)] = ids[np.uint64(at + 1)]
        for at in range(place + 1, count - 1):
            ranks[np.uint64(at)] = ranks[np.uint64(at + 1)]
        if place + 1 < count:
            ranks[np.uint64(place)] = _rank(tables.pairs, ids[np.uint64(place)], ids[np.uint64(place + 1)])
        if place > 0:
            ranks[np.uint64(place - 1)] = _rank(tables.pairs, ids[np.uint64(place - 1)], ids[np.uint64(place)])
    for at in range(count):
        out[np.uint64(n + at)] = ids[np.uint64(at)]
    return n + count


@kernel
def _push(heap, size, entry):
    at = size
    while at > 0:
        above = (at - 1) >> 1
        if heap[np.uint64(above)] <= entry:
            break
        heap[np.uint64(at)] = heap[np.uint64(above)]
        at = above
    heap[np.uint64(at)] = entry
    return size + 1


@kernel
def _pop(heap, size):
    """Takes the smallest entry, heap[0], off a heap of so many; the new size."""
    size -= 1
    entry = heap[np.uint64(size)]
    at = np.int64(0)
    while True:
        below = 2 * at + 1
        if below >= size:
            break
        if below + 1 < size and heap[np.uint64(below + 1)] < heap[np.uint64(below)]:
            below += 1
        if heap[np.uint64(below)] >= entry:
            break
        heap[np.uint64(at)] = heap[np.uint64(below)]
        at = below
    heap[np.uint64(at)] = entry
    return size


@kernel
def _entry(rank, place):
    return (np.uint64(rank) << np.uint64(40)) | np.uint64(place)


@kernel
def _merge_long(data, i, end, tables, room, out, n):
    """As `_merge_short`, with a heap of (rank, place); an entry counts only while its pair still has that rank."""
    ids, ranks, before, after, heap = room.links[0], room.links[1], room.links[2], room.links[3], room.heap
    count = end - i
    size = np.int64(0)
    for at in range(count):
        ids[at] = tables.byte_ids[data[i + at]]
        before[at] = at - 1
        after[at] = at + 1 if at + 1 < count else -1
        ranks[at] = NO_RANK
        if at + 1 < count:
            ranks[at] = tables.byte_ranks[(np.int64(data[i + at]) << 8) | np.int64(data[i + at + 1])]
            if ranks[at] != NO_RANK:
                size = _push(heap, size, _entry(ranks[at], at))
    while size:
        rank, at = np.int64(heap[0] >> np.uint64(40)), np.int64(heap[0] & np.uint64(2**40 - 1))
        size = _pop(heap, size)
        if ranks[at] != rank:
            continue
        gone = after[at]
        ids[at] = tables.merged[rank]
        after[at] = after[gone]
        ranks[gone] = NO_RANK
        ranks[at] = NO_RANK
        if after[at] >= 0:
            before[after[at]] = at
            ranks[at] = _rank(tables.pairs, ids[at], ids[after[at]])
            if ranks[at] != NO_RANK:
                size = _push(heap, size, _entry(ranks[at], at))
        if before[at] >= 0:
            left = before[at]
            ranks[left] = _rank(tables.pairs, ids[left], ids[at])
            if ranks[left] != NO_RANK:
                size = _push(heap, size, _entry(ranks[left], left))
    at = np.int64(0)
    while at >= 0:
        out[n] = ids[at]
        n += 1
        at = np.int64(after[at])
    return n


@kernel
def _copy_known(room, row, out, n):
    """The ids of the piece in a row of the cache, to `out`; the number of ids after them."""
    cache, spilled = room.cache, room.spilled
    count = np.int64((cache[row, _ABOUT] >> np.uint64(8)) & np.uint64(0xFF))
    if count <= _INLINE_IDS:
        # All places of the row are copied, which is quicker than asking for each; the rest is overwritten later.
        for pair in range(3):
            two = cache[row, np.uint64(_ABOUT + 1 + pair)]
            out[np.uint64(n + 2 * pair)] = np.int32(two & np.uint64(2**32 - 1))
            out[np.uint64(n + 2 * pair + 1)] = np.int32(two >> np.uint64(32))
    else:
        place = np.int64(cache[row, np.uint64(_ABOUT + 1)])
        for at in range(count):
            out[np.uint64(n + at)] = spilled[np.uint64(place + at)]
    return n + count


@kernel
def _remember(room, row, size, out, start, n):
    """Notes the ids from `start` to `n` in a row of the cache whose key is set already."""
    cache, spilled, spilled_end = room.cache, room.spilled, room.spilled_end
    count = n - start
    if count > _INLINE_IDS:
        if spilled_end[0] + count > len(spilled):  # full: begin anew
            cache[:, _ABOUT] = np.uint64(0)
            spilled_end[0] = 0
        cache[row, _ABOUT + 1] = np.uint64(spilled_end[0])
        for at in range(count):
            spilled[spilled_end[0] + at] = out[start + at]
        spilled_end[0] += count
    else:
        for at in range(0, count, 2):
            two = np.uint64(out[start + at])
            if at + 1 < count:
                two |= np.uint64(out[start + at + 1]) << np.uint64(32)
            cache[row, _ABOUT + 1 + (at >> 1)] = two
    cache[row, _ABOUT] = np.uint64(size) | (np.uint64(count) << np.uint64(8))


@kernel
def _merge(data, i, end, tables, room, out, n):
    """The ids of a piece, to `out`; the number of ids after them."""
    if len(tables.whole_offsets) > 1:
        known = _whole_id(tables.whole_slots, tables.whole_bytes, tables.whole_offsets, data, i, end)
        if known >= 0:
            out[n] = known
            return n + 1
    if end - i <= _SHORT:
        return _merge_short(data, i, end, tables, room.links[0], room.links[1], out, n)
    return _merge_long(data, i, end, tables, room, out, n)


@kernel
def _encode_piece(data, i, end, tables, room, out, n):
    """As `_merge`, for pieces of up to _KEY_BYTES bytes: only where it is not among those seen."""
    cache = room.cache
    size = end - i
    first = _word(data, i, end)
    second = third = fourth = np.uint64(0)
    mixed = first + np.uint64(size)
    if size > 8:
        second = _word(data, i + 8, end)
        mixed = _mixed(mixed) ^ second
        if size > 16:
            third = _word(data, i + 16, end)
            mixed = _mixed(mixed) ^ third
        if size > 24:
            fourth = _word(data, i + 24, end)
            mixed = _mixed(mixed) ^ fourth
    mixed = _mixed(mixed)
    row = mixed & np.uint64(len(cache) - _WAYS)
    chosen = row + (mixed >> np.uint64(64 - _WAYS_BITS))
    for _ in range(_WAYS):
        about = cache[row, _ABOUT]
        if not about:
            chosen = row
            break
        if (
            cache[row, 0] == first
            and cache[row, 1] == second
            and cache[row, 2] == third
            and cache[row, 3] == fourth
            and about & np.uint64(0xFF) == np.uint64(size)
        ):
            return _copy_known(room, row, out, n)
        row += np.uint64(1)
    start = n
    n = _merge(data, i, end, tables, room, out, n)
    cache[chosen, 0], cache[chosen, 1], cache[chosen, 2], cache[chosen, 3] = first, second, third, fourth
    _remember(room, chosen, size, out, start, n)
    return n


@kernel
def encode_texts(data, offsets, skip, eod_id, pattern, tables, room, out, lengths):
    """Encodes the texts that are not in `skip`: ids to `out`, EOD after each, their numbers to `lengths`.

    `out` has room for every byte, an EOD for each text, and _INLINE_IDS more. Returns the number of ids.
    """
    n = np.int64(0)
    for text in range(len(offsets) - 1):
        lengths[text] = 0
        if skip[text]:
            continue
        begin = n
        i, stop = np.int64(offsets[text]), np.int64(offsets[text + 1])
        while i < stop:
            end = piece_end(data, i, stop, pattern.family, pattern.digits, pattern.classes)
            if end == i + 1:
                out[np.uint64(n)] = tables.byte_ids[data[np.uint64(i)]]
                n += 1
            elif end - i <= _KEY_BYTES:
                n = _encode_piece(data, i, end, tables, room, out, n)
            else:
                n = _merge(data, i, end, tables, room, out, n)
            i = end
        out[np.uint64(n)] = eod_id
        n += 1
        lengths[text] = n - begin
    return n


@kernel
def cut_pieces(data, offsets, pattern, ends):
    """Where the pieces of texts end, to `ends` (room for every byte); the number of pieces."""
    count = 0
    for text in range(len(offsets) - 1):
        i, stop = np.int64(offsets[text]), np.int64(offsets[text + 1])
        while i < stop:
            i = piece_end(data, i, stop, pattern.family, pattern.digits, pattern.classes)
            ends[count] = i
            count += 1
    return count


@kernel
def merge_pieces(data, offsets, tables, room, out, lengths):
    """The ids of pieces already cut, to `out` (room for every byte), their numbers to `lengths`; how many in all."""
    n = np.int64(0)
    for piece in range(len(offsets) - 1):
        begin = n
        i, end = np.int64(offsets[piece]), np.int64(offsets[piece + 1])
        if end == i + 1:
            out[np.uint64(n)] = tables.byte_ids[data[np.uint64(i)]]
            n += 1
        elif end > i:
            n = _merge(data, i, end, tables, room, out, n)
        lengths[piece] = n - begin
    return n
