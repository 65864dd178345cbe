"""Learning merges on top of a vocabulary: of all pairs of neighbouring tokens the most frequent, again and again.

That is byte-pair encoding (Sennrich et al. 2016) begun not with bytes but with the tokens an old tokenizer makes. A
merge whose token the old vocabulary has already is never learned: it could set off old merges after new ones. So every
new merge makes a new token, old merges are all done before the first of them, and with each new token taken apart
again a text has the tokens it had before.
"""

from collections.abc import Callable, Mapping

import numpy as np

from .merge_kernels import (
    GAP,
    Pairs,
    Text,
    fill_slots,
    link_all,
    list_candidates,
    merge_places,
    most_frequent,
    places_of,
)
from .pieces import Pieces

_FIRST_ROOM = 2**16
_SHARE = 0.6  # candidates come at least so often, compared with the most frequent pair when they are listed
_LEAST_COUNT = 2  # a pair that comes once has nothing to teach

Merge = tuple[int, int, int]  # left, right, what they become


def learn_merges(
    pieces: Pieces,
    names: Mapping[int, str],
    wanted_tokens: int,
    first_id: int,
    forbidden: set[str],
    advance: Callable[[int], None] = lambda tokens: None,
) -> list[Merge]:
    """The merges, in their order, that make `wanted_tokens` new tokens from `first_id` on; fewer where no pair is left.

    Two merges may make the same token, so there may be more merges than tokens. Ties go to the pair of smallest ids.
    The order of the pieces changes nothing.

    Args:
        names: the old tokens, written with the letters of byte-level vocabularies, by id.
        forbidden: names that no merge may make.
        advance: told how many tokens were added.
    """
    if not len(pieces.tokens):
        return []
    text = _laid_out(pieces)
    pairs = _linked(text)
    largest = first_id + wanted_tokens
    sizes = np.ones(largest + 1, dtype=np.int32)
    names = dict(names)
    parts: dict[int, tuple[int, ...]] = {}  # of new tokens, in old ones
    ids: dict[str, int] = {}
    merges: list[Merge] = []
    while len(ids) < wanted_tokens:
        number = most_frequent(pairs)
        if number < 0:
            list_candidates(pairs, _SHARE, _LEAST_COUNT)
            number = most_frequent(pairs)
            if number < 0:
                break
        key = int(pairs.keys[number])
        left, right = key >> 32, key & (2**32 - 1)
        name, made_of = names[left] + names[right], parts.get(left, (left,)) + parts.get(right, (right,))
        known = ids.get(name)
        # Of the same bytes a tokenizer always makes the same tokens, so the second condition never holds for its text.
        if name in forbidden or (known is not None and parts[known] != made_of):
            pairs.listed[number] = 2
            continue
        made = first_id + len(ids) if known is None else known
        if known is None:
            ids[name], names[made], parts[made], sizes[made] = made, name, made_of, len(made_of)
            advance(1)
        merges.append((left, right, made))
        pairs = _with_room(pairs, 2 * int(pairs.places[number]))
        places = np.empty(int(pairs.places[number]), dtype=np.int32)
        places_of(text, pairs, number, places)
        places.sort()
        merge_places(text, pairs, places, sizes, left, right, made)
    return merges


def _laid_out(pieces: Pieces) -> Text:
    lengths = np.diff(pieces.offsets)
    # A gap before each piece, and one after the last.
    places = np.arange(len(pieces.tokens)) + np.repeat(np.arange(1, len(lengths) + 1), lengths)
    ids = np.full(len(pieces.tokens) + len(lengths) + 1, GAP, dtype=np.int32)
    ids[places] = pieces.tokens
    weights = np.zeros(len(ids), dtype=np.int32)
    weights[places] = np.repeat(pieces.counts, lengths)
    return Text(ids, weights, np.full(len(ids), -1, dtype=np.int32), np.full(len(ids), -1, dtype=np.int32))


def _linked(text: Text) -> Pairs:
    pairs = _grown(None, _FIRST_ROOM)
    place = len(text.ids) - 2
    while place:
        place = link_all(text, pairs, place)
        if place:
            pairs = _with_room(pairs, len(pairs.keys))
    return pairs


def _with_room(pairs: Pairs, more: int) -> Pairs:
    """The pairs, with room for so many more."""
    needed, room = int(pairs.limits[0]) + more, len(pairs.keys)
    while room < needed:
        room *= 2
    return pairs if room == len(pairs.keys) else _grown(pairs, room)


def _grown(old: Pairs | None, room: int) -> Pairs:
    kinds = (np.uint64, np.int64, np.int32, np.int32, np.uint8, np.int32)
    arrays = [np.zeros(room, dtype=kind) for kind in kinds]
    # A least count above all: nothing is listed while pairs are met for the first time.
    limits = np.array([0, 0, np.iinfo(np.int64).max]) if old is None else old.limits
    for new, kept in zip(arrays, old[1:7] if old else (), strict=False):
        new[: len(kept)] = kept
    pairs = Pairs._make([np.full(2 * room, -1, dtype=np.int32), *arrays, limits])
    fill_slots(pairs)
    return pairs
