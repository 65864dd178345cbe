"""Encoding many documents: our compiled byte-level BPE where it gives the ids of `tokenizers`, else that itself.

The compiled loops (bpe.py) do what `tokenizers` does for byte-level BPE with one of the pre-tokenisations in
pretokens.py. A tokenizer with any part they do not know is left to `tokenizers`, and so is one with which the two
differ on a sample; `reason` says why. So is a single document with an added token that has to be cut out of it.
"""

import json
import re
import threading
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aurora_m.corpus import is_nfc, text_buffers
from aurora_m.workspace import DataError

from .bpe import MOST_IDS, MOST_MERGES, Merges, Scratch, encode_texts, make_merges
from .pretokens import Pattern, known_pattern
from .shards import stored_dtype
from .tokenizer import Tokenizer

# What the compiled encoder must agree on with `tokenizers` before any document: contractions in all cases, digits of
# several scripts, white space of all kinds at every place, marks, emoji, a piece too long for the cache, one repeated.
HOSTILE = (
    "it's IT'S we're WE'RE 'twas 'Tis don'T I'm I'll I'LL I've I'd 'ſ x'sy  'd",
    " a  b   c\t\td \n e\r\n\r\nf \u00a0g\u3000h \u2028i\u0085j \x1ck\n\n  l  \n\t m    ",
    "1 22 333 4444 a5b66 ٣٤٥ १२३४ ½² Ⅷ 1,234.56 ２０２４年 0x1F\n12",
    "नमस्ते दुनिया। Tiếng Việt e\u0302\u0301 日本語、テスト。한국어 العربية؟ ไทย 🙂👩‍👩‍👧 \u200b\ufeff\ufffd",
    "def f(x):\n    return {'a': x!=1}  # ...\n\n\tif x>>2: pass\r\n" + "=" * 300 + "ab" * 2000,
)


class Encoded(NamedTuple):
    """Documents one after another: `tokens` uint16 or int32, EOD last in each; `lengths` int64[documents], with EOD."""

    tokens: np.ndarray
    lengths: np.ndarray


class Encoder:
    """Texts to stored ids. `name` says what does it, "compiled" or "tokenizers"; `reason` why it is not the former.

    `samples` are texts on which both must agree for the compiled one to be taken.
    """

    def __init__(self, tokenizer: Tokenizer, samples: Iterable[str] = ()) -> None:
        self.tokenizer = tokenizer
        self._dtype = stored_dtype(tokenizer.vocab_size)
        made = CompiledEncoder.of(tokenizer)
        self.compiled = None if isinstance(made, str) else made
        self.reason = made if isinstance(made, str) else None
        if self.compiled:
            self.reason = self._disagreement([*HOSTILE, *samples])
            self.compiled = None if self.reason else self.compiled

    @property
    def name(self) -> str:
        return "compiled" if self.compiled else "tokenizers"

    def encode(self, texts: pa.LargeStringArray) -> Encoded:
        """The ids of texts without nulls. Releases the interpreter lock, so threads add up.

        Raises:
            DataError: a text is no valid UTF-8.
        """
        try:
            texts.validate(full=True)
        except pa.ArrowInvalid as error:
            raise DataError(f"a text is no valid UTF-8 ({error}); run the curate stage again") from None
        if self.compiled is None:
            return self._encode_by_reference(texts)
        encoded, left = self.compiled.encode(texts, self.tokenizer.eod_id)
        encoded = Encoded(encoded.tokens.astype(self._dtype), encoded.lengths)
        return self._with_the_left(texts, encoded, left) if left.any() else encoded

    def _encode_by_reference(self, texts: pa.LargeStringArray) -> Encoded:
        ids = self.tokenizer.encode_batch(texts.to_pylist())
        lengths = np.array([len(document) + 1 for document in ids], dtype=np.int64)
        tokens = np.full(lengths.sum(), self.tokenizer.eod_id, dtype=self._dtype)
        for document, end in zip(ids, np.cumsum(lengths).tolist(), strict=True):
            tokens[end - 1 - len(document) : end - 1] = document
        return Encoded(tokens, lengths)

    def _with_the_left(self, texts: pa.LargeStringArray, encoded: Encoded, left: np.ndarray) -> Encoded:
        """`encoded`, in which the texts in `left` have no ids yet, with theirs at their places."""
        others = self._encode_by_reference(texts.filter(pa.array(left)))
        lengths = encoded.lengths.copy()
        lengths[left] = others.lengths
        tokens = np.empty(lengths.sum(), dtype=self._dtype)
        of_left = np.repeat(left, lengths)
        tokens[of_left], tokens[~of_left] = others.tokens, encoded.tokens
        return Encoded(tokens, lengths)

    def _disagreement(self, texts: list[str]) -> str | None:
        special = self.tokenizer.backend.get_added_tokens_decoder().values()
        texts = [*texts, " x".join(token.content for token in special)]
        array = pa.array(texts, pa.large_string())
        ours, theirs = self.encode(array), self._encode_by_reference(array)
        if np.array_equal(ours.lengths, theirs.lengths) and np.array_equal(ours.tokens, theirs.tokens):
            return None
        ends = np.cumsum(ours.lengths)[:-1], np.cumsum(theirs.lengths)[:-1]
        pairs = zip(texts, np.split(ours.tokens, ends[0]), np.split(theirs.tokens, ends[1]), strict=True)
        first = next(text for text, a, b in pairs if not np.array_equal(a, b))
        return f"its ids are not those of tokenizers on a sample that begins {first[:40]!r}"


class CompiledEncoder:
    """The tables of one tokenizer and, for each thread, what it writes to."""

    def __init__(self, pattern: Pattern, tables: Merges, cut_out: list[str], normalizer: Any) -> None:
        self.pattern, self.tables, self._normalizer = pattern, tables, normalizer
        self._cut_out = "|".join(map(re.escape, cut_out))
        self._of_thread = threading.local()

    def encode(self, texts: pa.LargeStringArray, eod_id: int) -> tuple[Encoded, np.ndarray]:
        """int32 ids of all texts but those that bool[texts] says are left out, which have length 0.

        The ids are this thread's until its next call.
        """
        texts, left = self.prepared(texts)
        scratch = getattr(self._of_thread, "scratch", None) or Scratch()
        self._of_thread.scratch = scratch
        data, offsets = text_buffers(texts)
        scratch.make_room(int(np.diff(offsets).max(initial=0)), int(offsets[-1] - offsets[0]), len(texts))
        lengths = np.empty(len(texts), dtype=np.int64)
        count = encode_texts(data, offsets, left, eod_id, self.pattern, self.tables, scratch.room, scratch.out, lengths)
        return Encoded(scratch.out[:count], lengths), left

    def prepared(self, texts: pa.LargeStringArray) -> tuple[pa.LargeStringArray, np.ndarray]:
        """The texts as they are cut into pieces, and bool[texts]: which hold an added token that stands apart."""
        left = self._contains_added(texts)
        if self._normalizer is not None:
            texts = self._normalized(texts)
            left |= self._contains_added(texts)
        return texts, left

    def _contains_added(self, texts: pa.LargeStringArray) -> np.ndarray:
        if not self._cut_out:
            return np.zeros(len(texts), dtype=np.bool_)
        found = pc.call_function("match_substring_regex", [texts], pc.MatchSubstringOptions(self._cut_out))
        return found.to_numpy(zero_copy_only=False)

    def _normalized(self, texts: pa.LargeStringArray) -> pa.LargeStringArray:
        changes = ~is_nfc(texts)
        if not changes.any():
            return texts
        rows = texts.to_pylist()
        for number in np.flatnonzero(changes).tolist():
            rows[number] = self._normalizer.normalize_str(rows[number])
        return pa.array(rows, pa.large_string())

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "CompiledEncoder | str":
        """The compiled encoder of a tokenizer, or why there is none."""
        content = json.loads(tokenizer.backend.to_str())
        model, vocabulary = content["model"], content["model"].get("vocab", {})
        if model.get("type") != "BPE":
            return f"it is no BPE but {model.get('type')}"
        for option in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
            if model.get(option):
                return f"its model has {option}"
        if not _is_nfc_or_nothing(content.get("normalizer")):
            return f"it has a normalizer not known here: {content['normalizer'].get('type')}"
        pattern = known_pattern(content.get("pre_tokenizer"))
        if isinstance(pattern, str):
            return pattern
        to_byte = byte_of_character()
        if missing := [byte for letter, byte in to_byte.items() if letter not in vocabulary]:
            return f"its vocabulary lacks {len(missing)} of the 256 bytes"
        merges = [merge if isinstance(merge, list) else merge.split(" ") for merge in model["merges"]]
        if len(set(vocabulary.values())) < len(vocabulary) or max(vocabulary.values()) >= MOST_IDS - 1:
            return f"its vocabulary names an id twice, or one above {MOST_IDS - 2}"
        if len(merges) > MOST_MERGES - 1:
            return f"it has {len(merges)} merges, more than {MOST_MERGES - 1}"
        byte_ids = [vocabulary[letter] for letter in sorted(to_byte, key=to_byte.__getitem__)]
        whole = None
        if model.get("ignore_merges"):
            names = {name: id for name, id in vocabulary.items() if name and all(letter in to_byte for letter in name)}
            whole = {bytes(to_byte[letter] for letter in name): id for name, id in names.items()}
        ids = [(vocabulary[left], vocabulary[right], vocabulary[left + right]) for left, right in merges]
        cut_out = [token["content"] for token in content["added_tokens"] if not token["special"]]
        normalizer = tokenizer.backend.normalizer if content.get("normalizer") else None
        return cls(pattern, make_merges(byte_ids, ids, whole), cut_out, normalizer)


def _is_nfc_or_nothing(normalizer: dict[str, Any] | None) -> bool:
    steps = [normalizer] if normalizer else []
    if normalizer and normalizer.get("type") == "Sequence":
        steps = normalizer["normalizers"]
    return all(step.get("type") == "NFC" for step in steps)


def byte_of_character() -> dict[str, int]:
    """How byte-level vocabularies write bytes: printable Latin-1 as itself, the rest from U+0100 on (GPT-2)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(rest)}
