"""Counting pairs of neighbouring tokens while they are merged: what learning a byte-level BPE spends its time on.

The pieces lie in one array with a gap of one place before, between and after them. A token takes as many places as it
replaces; its id stands in its first and in its last one, so that both neighbours are found without links: the next
begins after it, the one before ends just before it. Every token that has a next one is linked into the list of its
pair; a merge takes the pairs it breaks off their lists and puts the ones it makes on theirs, so counts are exact.
"""

from typing import NamedTuple

import numpy as np

from aurora_m.workspace import kernel

GAP = -1
_INSIDE = -2
_MIX = np.uint64(0x9E3779B97F4A7C15)


class Text(NamedTuple):
    """The pieces, by place."""

    ids: np.ndarray  # int32[places]: the token that begins or ends here, GAP, or anything in between
    weights: np.ndarray  # int32[places]: how often the piece comes
    after: np.ndarray  # int32[places]: the next of the same pair, -1 at the end
    before: np.ndarray  # int32[places]: the one before it in its list, -1 at its head


class Pairs(NamedTuple):
    """The pairs met so far, by number."""

    slots: np.ndarray  # int32[power of two]: the hash table of their numbers, -1 where there is none
    keys: np.ndarray  # uint64[room]: left id and right id
    counts: np.ndarray  # int64[room]: how often the pair comes now
    places: np.ndarray  # int32[room]: in how many places
    heads: np.ndarray  # int32[room]: the first place, -1 where there is none
    listed: np.ndarray  # uint8[room]: 1 for those in `candidates`, 2 for those never to be merged
    candidates: np.ndarray  # int32[room]: all that come `limits[2]` times or more, and some others
    limits: np.ndarray  # int64[3]: how many pairs, how many candidates, the candidates' least count


@kernel
def _key(left, right):
    return (np.uint64(left) << np.uint64(32)) | np.uint64(right)


@kernel
def _slot(pairs, key):
    """The slot a pair lies in, or the free one where it would."""
    mask = np.uint64(len(pairs.slots) - 1)
    mixed = key * _MIX
    slot = (mixed ^ (mixed >> np.uint64(29))) & mask
    while pairs.slots[slot] >= 0 and pairs.keys[pairs.slots[slot]] != key:
        slot = (slot + np.uint64(1)) & mask
    return slot


@kernel
def fill_slots(pairs):
    """Writes the hash table anew."""
    for number in range(pairs.limits[0]):
        pairs.slots[_slot(pairs, pairs.keys[number])] = number


@kernel
def _link(text, pairs, place, left, right):
    """Puts a place on its pair's list; the pair is made where it is new."""
    key = _key(left, right)
    slot = _slot(pairs, key)
    number = pairs.slots[slot]
    if number < 0:
        number = np.int32(pairs.limits[0])
        pairs.limits[0] += 1
        pairs.slots[slot] = number
        pairs.keys[number] = key
        pairs.counts[number] = 0
        pairs.places[number] = 0
        pairs.heads[number] = -1
        pairs.listed[number] = 0
    head = pairs.heads[number]
    text.after[place] = head
    text.before[place] = -1
    if head >= 0:
        text.before[head] = place
    pairs.heads[number] = place
    pairs.places[number] += 1
    pairs.counts[number] += text.weights[place]
    if pairs.listed[number] == 0 and pairs.counts[number] >= pairs.limits[2]:
        pairs.listed[number] = 1
        pairs.candidates[pairs.limits[1]] = number
        pairs.limits[1] += 1


@kernel
def _unlink(text, pairs, place, left, right):
    number = pairs.slots[_slot(pairs, _key(left, right))]
    after, before = text.after[place], text.before[place]
    if before >= 0:
        text.after[before] = after
    else:
        pairs.heads[number] = after
    if after >= 0:
        text.before[after] = before
    pairs.places[number] -= 1
    pairs.counts[number] -= text.weights[place]


@kernel
def link_all(text, pairs, start):
    """Links all tokens, each one place long, from `start` downwards; the place it stopped at for want of room, or 0."""
    for place in range(start, 0, -1):
        if pairs.limits[0] == len(pairs.keys):
            return place
        if text.ids[place] >= 0 and text.ids[place + 1] >= 0:
            _link(text, pairs, place, text.ids[place], text.ids[place + 1])
    return 0


@kernel
def list_candidates(pairs, share, least):
    """Lists the pairs that come at least `share` times as often as the most frequent, and `least` times."""
    highest = np.int64(0)
    for number in range(pairs.limits[0]):
        if pairs.listed[number] != 2:
            highest = max(highest, pairs.counts[number])
    pairs.limits[2] = max(np.int64(highest * share), least)
    pairs.limits[1] = 0
    for number in range(pairs.limits[0]):
        if pairs.listed[number] == 2:
            continue
        pairs.listed[number] = pairs.counts[number] >= pairs.limits[2]
        if pairs.listed[number]:
            pairs.candidates[pairs.limits[1]] = number
            pairs.limits[1] += 1


@kernel
def most_frequent(pairs):
    """The candidate that comes most often, of several the one of the smallest ids; -1 where none comes often enough."""
    best = np.int32(-1)
    for at in range(pairs.limits[1]):
        number = pairs.candidates[at]
        count = pairs.counts[number]
        if pairs.listed[number] == 2 or count < pairs.limits[2]:
            continue
        if (
            best < 0
            or count > pairs.counts[best]
            or (count == pairs.counts[best] and pairs.keys[number] < pairs.keys[best])
        ):
            best = number
    return best


@kernel
def places_of(text, pairs, number, places):
    """The places of a pair, to `places`."""
    place = pairs.heads[number]
    at = 0
    while place >= 0:
        places[at] = place
        at += 1
        place = text.after[place]


@kernel
def merge_places(text, pairs, places, sizes, left, right, made):
    """Makes one token of a pair in all its `places`, ascending; `sizes` int32: the places that each id takes."""
    left_size, right_size = sizes[left], sizes[right]
    for place in places:
        second = place + left_size
        if text.ids[place] != left:  # of three alike, the second went with the first
            continue
        end = second + right_size - 1
        previous, following = text.ids[place - 1], text.ids[end + 1]
        _unlink(text, pairs, place, left, right)
        if previous >= 0:
            begin = place - sizes[previous]
            _unlink(text, pairs, begin, previous, left)
            _link(text, pairs, begin, previous, made)
        if following >= 0:
            _unlink(text, pairs, second, right, following)
            _link(text, pairs, place, made, following)
        if left_size > 1:
            text.ids[second - 1] = _INSIDE
        if right_size > 1:
            text.ids[second] = _INSIDE
        text.ids[place] = made
        text.ids[end] = made
