"""A byte-level BPE with new tokens for some domains, on top of all it had: ids, merges, special tokens.

Merges are learned from text that the old merges have segmented already (merges.py) and come after the old ones, new
ids after all old ids. So a text is segmented as before, and then some neighbours are joined: with each new token taken
apart again the ids are the old tokenizer's. This is proved on samples each time; where it does not hold, nothing is
written.
"""

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers

from aurora_m.workspace import DataError, Progress, fingerprint_file, format_count

from .config import SpecialTokens, TokenizerExtendConfig
from .encoder import HOSTILE, Encoder, byte_of_character
from .merges import Merge, learn_merges
from .pieces import count_pieces
from .sample import sample_documents
from .tokenizer import Tokenizer, load_tokenizer, write_tokenizer


@dataclass(frozen=True)
class Extension:
    """An extended tokenizer. `parts`: the old ids each new token stands for, from `first_new_id` on."""

    old: Tokenizer
    tokenizer: Tokenizer
    parts: list[list[int]]
    facts: dict[str, Any]

    @property
    def first_new_id(self) -> int:
        return self.old.vocab_size

    def taken_apart(self, ids: Iterable[int]) -> list[int]:
        """Ids with every new token replaced by its parts."""
        first = self.first_new_id
        return [part for id in ids for part in (self.parts[id - first] if id >= first else (id,))]


def extend_tokenizer(
    config: TokenizerExtendConfig,
    special: SpecialTokens,
    old: Tokenizer,
    curated: Path,
    out: Path,
    *,
    seed: int,
    samples: Iterable[str] = (),
    progress: Progress,
) -> Extension:
    """Learns new tokens on a sample of curated documents and writes the tokenizer to `out`.

    The same documents give the same file. Memory grows with `bytes_per_domain`, not with the corpus.

    Args:
        samples: texts on which the result must be what it should be, beside hard ones of our own.

    Raises:
        DataError: `old` is no byte-level BPE, a named domain has no curated documents, or the result is not as it
            should be on a text.
    """
    started = time.monotonic()
    content = json.loads((old.folder / "tokenizer.json").read_text(encoding="utf-8"))
    _check(content, old.folder)
    vocabulary: dict[str, int] = old.backend.get_vocab(with_added_tokens=True)
    domains = {
        domain: sample_documents(curated, domain, config.bytes_per_domain, seed, "tokenizer.extend.domains")
        for domain in config.domains
    }
    counted = _Bytes()
    pieces = count_pieces(Encoder(old), old, counted.through(domains, progress))
    with progress.task("new tokens", unit="tokens", total=config.new_tokens) as task:
        names = {id: name for name, id in vocabulary.items()}
        merges = learn_merges(pieces, names, config.new_tokens, old.vocab_size, set(vocabulary), task.advance)
    parts = _parts(merges, old.vocab_size)
    if len(parts) < config.new_tokens:
        progress.say(
            f"  tokenizer: {format_count(len(parts))} new tokens, not {format_count(config.new_tokens)}: "
            "the sample has no more pairs that come twice"
        )
    backend = tokenizers.Tokenizer.from_str(json.dumps(_extended(content, names, merges)))
    write_tokenizer(backend, out, old)
    facts = {
        "fingerprint": fingerprint_file(old.folder / "tokenizer.json"),
        "vocab_size": old.vocab_size,
        "first_new_id": old.vocab_size,
        "new_tokens": len(parts),
        "new_merges": len(merges),
        "init": config.init,
        "sample_bytes": counted.by_domain,
        "documents_left_out": pieces.left_out,
        "seconds": round(time.monotonic() - started, 3),
    }
    extension = Extension(old, load_tokenizer(out, special), parts, facts)
    _prove(extension, [*HOSTILE, *samples])
    return extension


class _Bytes:
    """Counts the bytes of documents that pass through, by domain."""

    def __init__(self) -> None:
        self.by_domain: dict[str, int] = {}

    def through(self, domains: dict[str, Iterator[str]], progress: Progress) -> Iterator[str]:
        with progress.task("tokenizer sample", unit="bytes", total=None) as task:
            for domain, texts in domains.items():
                self.by_domain[domain] = 0
                for text in texts:
                    size = len(text.encode())
                    self.by_domain[domain] += size
                    task.advance(size, note=domain)
                    yield text


def _check(content: dict[str, Any], folder: Path) -> None:
    """Refuses what new merges cannot be put on top of."""
    model, why = content["model"], None
    options = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
    if model.get("type") != "BPE":
        why = f"its model is {model.get('type')}"
    elif used := [option for option in options if model.get(option)]:
        why = f"its model has {used[0]}"
    elif missing := [letter for letter in byte_of_character() if letter not in model["vocab"]]:
        why = f"its vocabulary lacks {len(missing)} of the 256 bytes"
    elif '"ByteLevel"' not in json.dumps(content.get("pre_tokenizer")):
        why = "its pre-tokenizer has no ByteLevel step"
    if why:
        raise DataError(
            f"{folder / 'tokenizer.json'} cannot be extended: {why}, and only byte-level BPE can; leave "
            "tokenizer.extend out, or start from a model with such a tokenizer"
        )


def _parts(merges: list[Merge], first_id: int) -> list[list[int]]:
    parts: list[list[int]] = []

    def of(id: int) -> list[int]:
        return parts[id - first_id] if id >= first_id else [id]

    for left, right, made in merges:
        if made - first_id == len(parts):  # of two merges that make the same token, the first
            parts.append(of(left) + of(right))
    return parts


def _extended(content: dict[str, Any], names: dict[int, str], merges: list[Merge]) -> dict[str, Any]:
    """tokenizer.json with new merges and tokens."""
    model = content["model"]
    vocabulary = dict(model["vocab"])
    # An added token that is not in the vocabulary is given the next free id at loading, whatever the file says.
    vocabulary |= {token["content"]: token["id"] for token in content["added_tokens"]}
    named = dict(names)
    written = []
    for left, right, made in merges:
        named[made] = named[left] + named[right]
        vocabulary[named[made]] = made
        written.append([named[left], named[right]])
    old = [merge if isinstance(merge, list) else merge.split(" ") for merge in model["merges"]]
    return content | {"model": model | {"vocab": vocabulary, "merges": old + written}}


def _prove(extension: Extension, texts: list[str]) -> None:
    """Raises DataError where a text's ids, new tokens taken apart, are not the old tokenizer's."""
    old, new = extension.old, extension.tokenizer
    contents = [token.content for token in old.backend.get_added_tokens_decoder().values()]
    texts = [*texts, " x".join(contents), *contents]
    if (new.eod_id, new.fim) != (old.eod_id, old.fim) or new.vocab_size != old.vocab_size + len(extension.parts):
        raise DataError(f"{old.folder}: extended, its special tokens have other ids; this is a fault of aurora-m")
    for text, before, after in zip(texts, old.encode_batch(texts), new.encode_batch(texts), strict=True):
        if extension.taken_apart(after) != before:
            raise DataError(
                f"{old.folder / 'tokenizer.json'} cannot be extended: with new merges, a text that begins "
                f"{text[:40]!r} is no longer cut as before; use tokenizer.path or tokenizer.train instead"
            )
