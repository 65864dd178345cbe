"""Encoding many documents fast: tiktoken where it gives the very ids of `tokenizers`, else `tokenizers` itself.

Both run the same byte-level BPE; tiktoken does it about three times faster (benchmarks/tokens.py). It is used for the
pre-tokenisations known here (GPT-2's, and StarCoder's with digits apart), after a comparison on documents of the corpus
in hand.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .shards import stored_dtype
from .tokenizer import Tokenizer

# The expression of the GPT-2 tokenizer, as `tokenizers`' ByteLevel applies it.
_WORDS = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
# The same after each digit was set apart: space before a digit then stands at the end of its piece.
_WORDS_AND_DIGITS = r"""\p{N}|'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?=\p{N})|\s+(?!\S)|\s+"""


class Encoder:
    """Documents to stored ids with EOD at the end. `name` says which library does it.

    `samples` are texts on which both must agree for the fast one to be taken.
    """

    def __init__(self, tokenizer: Tokenizer, samples: Iterable[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._dtype = stored_dtype(tokenizer.vocab_size)
        self._fast = _FastEncoder.of(tokenizer)
        specials = [tokenizer.backend.id_to_token(number) for number in tokenizer.backend.get_added_tokens_decoder()]
        if self._fast and not all(map(self._agree, [" x".join(map(str, specials)), *samples])):
            self._fast = None

    @property
    def name(self) -> str:
        return "tiktoken" if self._fast else "tokenizers"

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """uint16 or int32 ids of each text, EOD last. Releases the interpreter lock, so threads add up."""
        if self._fast:
            return [self._with_eod(self._encode_fast(text)) for text in texts]
        return [self._with_eod(ids) for ids in self._tokenizer.encode_batch(texts)]

    def _encode_fast(self, text: str) -> np.ndarray | list[int]:
        assert self._fast
        try:
            return self._fast.encode(text)
        except ValueError:  # its regular expressions give up on a megabyte of white space
            return self._tokenizer.encode(text)

    def _with_eod(self, ids: np.ndarray | list[int]) -> np.ndarray:
        document = np.empty(len(ids) + 1, dtype=self._dtype)
        document[:-1] = ids
        document[-1] = self._tokenizer.eod_id
        return document

    def _agree(self, text: str) -> bool:
        return np.array_equal(self._encode_fast(text), self._tokenizer.encode(text))


class _FastEncoder:
    """tiktoken over the merges of a tokenizer.json: its ranks are the merges' order, `_ids` leads back to our ids."""

    def __init__(self, pattern: str, tokens: list[bytes], ids: list[int]) -> None:
        import tiktoken

        ranks = {token: rank for rank, token in enumerate(tokens)}
        self._encoding = tiktoken.Encoding("aurora-m", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
        self._ids = np.array(ids)

    def encode(self, text: str) -> np.ndarray:
        return self._ids[self._encoding.encode_to_numpy(text, disallowed_special=())]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "_FastEncoder | None":
        """The fast encoder of a tokenizer, or None where it is of another kind or tiktoken is not installed."""
        content = json.loads(tokenizer.backend.to_str())
        pattern = _pattern(content.get("pre_tokenizer") or {})
        if pattern is None or not _is_plain_bpe(content):
            return None
        vocabulary, to_byte = content["model"]["vocab"], _byte_of_character()
        merged = ["".join(merge) if isinstance(merge, list) else merge.replace(" ", "") for merge in _merges(content)]
        names = [*dict.fromkeys([*to_byte, *merged])]
        if not all(name in vocabulary and all(letter in to_byte for letter in name) for name in names):
            return None
        tokens = [bytes(to_byte[letter] for letter in name) for name in names]
        try:
            return cls(pattern, tokens, [vocabulary[name] for name in names])
        except ImportError:
            return None


def _merges(content: dict[str, Any]) -> list[Any]:
    return content["model"]["merges"]


def _is_plain_bpe(content: dict[str, Any]) -> bool:
    """Whether nothing but the merges decides, and no added token is cut out of the text."""
    model = content["model"]
    return (
        model.get("type") == "BPE"
        and not content.get("normalizer")
        and all(not model.get(option) for option in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"))
        and not model.get("byte_fallback")
        and not model.get("ignore_merges")
        and all(token["special"] for token in content["added_tokens"])
    )


def _pattern(pre_tokenizer: dict[str, Any]) -> str | None:
    """tiktoken's expression for a pre-tokeniser, None for one that is not known here."""
    kind = pre_tokenizer.get("type")
    steps = pre_tokenizer.get("pretokenizers", []) if kind == "Sequence" else [pre_tokenizer]
    if not steps or steps[-1].get("type") != "ByteLevel":
        return None
    if steps[-1].get("add_prefix_space", True) or not steps[-1].get("use_regex", True):
        return None
    if len(steps) == 1:
        return _WORDS
    digits_apart = steps[0].get("type") == "Digits" and steps[0].get("individual_digits")
    return _WORDS_AND_DIGITS if len(steps) == 2 and digits_apart else None


def _byte_of_character() -> dict[str, int]:
    """How byte-level vocabularies write bytes: printable Latin-1 as itself, the rest from U+0100 on (GPT-2)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(rest)}
