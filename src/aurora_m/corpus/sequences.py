"""Compiled loops over the hashes of words: phrases, MinHash, and the joining of duplicates.

Words come as `segments.Segments` has them: those of text i are `offsets[i]` to `offsets[i + 1]`.
"""

import numpy as np

from ..workspace import kernel
from .hashing import FOLD, fold, mix


@kernel
def phrase_key(hashes):
    """The key of a phrase of words, given their hashes."""
    key = np.uint64(0)
    for word_hash in hashes:
        key = fold(key, word_hash)
    return key


@kernel
def _longest_phrase(word_hash, word, last, table_keys, table_kinds, heads):
    """The words of the longest listed phrase that begins at a word (0: none does), and its slot in the table.

    The table (open addressing, a power of two) has the key of every phrase (kind 2 and on) and of every beginning of
    one (kind 1); kind 0 is an empty slot. `heads` (bool, a power of two) holds by the low bits of a word's hash
    whether a phrase may begin with it: most words need no more than this look.
    """
    if not heads[np.int64(word_hash[word]) & (len(heads) - 1)]:
        return 0, 0
    mask = np.int64(len(table_keys) - 1)
    key = np.uint64(0)
    longest = phrase = 0
    at = word
    while at < last:
        key = fold(key, word_hash[at])
        at += 1
        slot = np.int64(key) & mask
        while table_kinds[slot] != 0 and table_keys[slot] != key:
            slot = (slot + 1) & mask
        if table_kinds[slot] == 0:
            break
        if table_kinds[slot] > 1:
            longest, phrase = at - word, slot
    return longest, phrase


@kernel
def count_listed_words(word_offsets, word_hash, table_keys, table_kinds, heads, seen, out):
    """Of every text: its words in a list of phrases, read left to right, the longest phrase first; and how many
    different phrases it has.

    `seen` (int64, zeros, as long as the table) is scratch.
    """
    for text in range(len(word_offsets) - 1):
        word, last = word_offsets[text], word_offsets[text + 1]
        listed = different = 0
        while word < last:
            longest, phrase = _longest_phrase(word_hash, word, last, table_keys, table_kinds, heads)
            if longest:
                listed += longest
                different += seen[phrase] != text + 1
                seen[phrase] = text + 1
            word += max(longest, 1)
        out[text, 0], out[text, 1] = listed, different


@kernel
def mark_phrases(word_offsets, word_hash, table_keys, table_kinds, heads, marks):
    """Writes the kind of every listed phrase (uint8, from 2) to its first word; read as `count_listed_words` does."""
    for text in range(len(word_offsets) - 1):
        word, last = word_offsets[text], word_offsets[text + 1]
        while word < last:
            longest, phrase = _longest_phrase(word_hash, word, last, table_keys, table_kinds, heads)
            if longest:
                marks[word] = table_kinds[phrase]
            word += max(longest, 1)


@kernel
def count_shingles(word_offsets, documents, ngram, out):
    """Where the shingles of every document named begin among those of all, int64[len(documents) + 1]."""
    out[0] = 0
    for row in range(len(documents)):
        words = word_offsets[documents[row] + 1] - word_offsets[documents[row]]
        out[row + 1] = out[row] + (words - min(np.int64(ngram), words) + 1 if words else 0)


@kernel
def minhash(word_offsets, word_hash, documents, ngram, multipliers, addends, shingle_offsets, shingles, out):
    """Shingles and MinHash signatures (len(documents), permutations), uint32, of the documents named.

    A shingle is a hash of `ngram` words (or characters, in their place) in a row. A document of fewer words is one
    shingle of all its words; one without words has none, and the greatest value everywhere in its signature.
    """
    permutations = len(multipliers)
    for row in range(len(documents)):
        signature = out[row]
        signature[:] = np.uint32(0xFFFFFFFF)
        first, last = word_offsets[documents[row]], word_offsets[documents[row] + 1]
        length = min(np.int64(ngram), last - first)
        if length == 0:
            continue
        place = shingle_offsets[row]
        for begin in range(first, last - length + 1):
            key = np.uint64(0)
            for word in range(begin, begin + length):
                key = key * FOLD + word_hash[word]
            shingle = np.uint32(mix(key) >> np.uint64(32))
            shingles[place] = shingle
            place += 1
            for k in range(permutations):
                value = np.uint32(multipliers[k] * shingle + addends[k])
                signature[k] = min(signature[k], value)


@kernel
def band_keys(signatures, first_column, columns, out):
    """The 64-bit key of one band (`columns` columns from `first_column`) of every signature."""
    for row in range(len(signatures)):
        key = np.uint64(0)
        for column in range(first_column, first_column + columns):
            key = fold(key, np.uint64(signatures[row, column]))
        out[row] = key


@kernel
def _root(parents, item):
    while parents[item] != item:
        parents[item] = parents[parents[item]]
        item = parents[item]
    return item


@kernel
def overlap(first, second, keys, stamps, stamp):
    """Jaccard overlap of two arrays of shingles as sets.

    `keys` and `stamps` are scratch of one power of two, at least twice as long as both arrays together; slots whose
    stamp is neither `stamp` (in the first set) nor `stamp + 1` (in both) nor `stamp + 2` (in the second) are free.
    """
    size = 2
    while size < 2 * (len(first) + len(second)):
        size *= 2
    mask = size - 1
    union = both = 0
    for shingle in first:
        slot = np.int64(shingle) & mask
        while stamps[slot] == stamp and keys[slot] != shingle:
            slot = (slot + 1) & mask
        union += stamps[slot] != stamp
        keys[slot], stamps[slot] = shingle, stamp
    for shingle in second:
        slot = np.int64(shingle) & mask
        while stamps[slot] >= stamp and keys[slot] != shingle:
            slot = (slot + 1) & mask
        if stamps[slot] < stamp:
            union += 1
            keys[slot], stamps[slot] = shingle, stamp + 2
        elif stamps[slot] == stamp:
            both += 1
            stamps[slot] = stamp + 1
    return both / union if union else 0.0


@kernel
def join_similar(
    keys, order, rank, signatures, agreement, shingles, offsets, threshold, scratch, stamps, stamp, leaders, parents
):
    """Joins, in `parents`, documents that share a band key and whose shingles overlap by `threshold` or more.

    Documents are rows of `signatures`; `rank` says which comes first. `order` sorts `keys`, equal ones by rank, so that
    every document of a run comes after those it may belong to. Each is compared with the run's leaders, the first of
    every group (at most `len(leaders)`, to stay linear in runs of unlike documents): first by the signatures, which
    must agree in `agreement` places, then by the shingles themselves. The root of a joined group is its first by rank.

    Returns the pairs compared by their shingles, how many of them were joined, and the next unused stamp.
    """
    compared = joined = 0
    begin = 0
    while begin < len(order):
        end = begin + 1
        while end < len(order) and keys[order[end]] == keys[order[begin]]:
            end += 1
        found = 0
        for position in range(begin, end if end > begin + 1 else begin):
            document = order[position]
            leads = True
            for number in range(found):
                leader = leaders[number]
                mine, theirs = _root(parents, document), _root(parents, leader)
                if mine != theirs:
                    equal = 0
                    for column in range(signatures.shape[1]):
                        equal += signatures[document, column] == signatures[leader, column]
                    if equal < agreement:
                        continue
                    compared += 1
                    stamp += 3
                    first = shingles[offsets[document] : offsets[document + 1]]
                    second = shingles[offsets[leader] : offsets[leader + 1]]
                    if overlap(first, second, scratch, stamps, stamp) < threshold:
                        continue
                    joined += 1
                    if rank[mine] > rank[theirs]:
                        mine, theirs = theirs, mine
                    parents[theirs] = mine
                leads = False
            if leads and found < len(leaders):
                leaders[found] = document
                found += 1
        begin = end
    return compared, joined, stamp + 3


@kernel
def find_roots(parents):
    """Lets every document point to the root of its group itself."""
    for document in range(len(parents)):
        parents[document] = _root(parents, document)
