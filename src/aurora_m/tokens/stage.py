"""The tokenize stage: a tokenizer, then every curated document through it into shards."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aurora_m.workspace import Progress, RecipeError, Task, available_cores, fingerprint_file, write_json

from .config import TokenizerConfig
from .curated import curated_domains, curated_files, present_columns, read_rows, text_bytes
from .encoder import Encoder
from .extension import Extension, extend_tokenizer
from .new_rows import ROWS_FILE, mean_rows
from .shards import ShardWriter, docs_table, stored_dtype
from .shuffle import DiskShuffle
from .tokenizer import Tokenizer, import_tokenizer, train_tokenizer
from .weighting import document_weights, stored_columns

_COLUMNS = ["id", "text", "source", "lang"]
_SPLITS = ("train", "heldout")
_BATCHES_UNDER_WAY = 8
BASE_FOLDER = "_base"  # what is of the base's own tokenizer; no domain's name begins so
_SAMPLE_TEXTS, _SAMPLE_CHARACTERS = 16, 20_000  # of each domain, on which the fast encoder must prove itself


def tokenize(
    config: TokenizerConfig,
    curated: Path,
    out: Path,
    *,
    base_folder: Path | None = None,
    kept_tokenizer: Path | None = None,
    seed: int = 0,
    progress: Progress,
) -> dict[str, Any]:
    """Writes `out/tokenizer/`, `out/<domain>/{train,heldout}-*` and `out/tokens.json`, whose content it returns.

    Where the tokenizer is extended, `out/_base/` has the same of the one it was made from, held-out documents only: the
    base model is measured on those.

    The same documents give the same files, whatever the number of threads and the memory for shuffling. Memory does
    not grow with the corpus.
    `base_folder` is the base checkpoint's, for a recipe that neither trains nor names a tokenizer. `kept_tokenizer`
    is one trained earlier, which is taken again instead of another being trained: a model is under way with it.

    Raises:
        RecipeError: the recipe's tokenizer does not exist, or there is none.
        DataError: no curated documents, a damaged file, a tokenizer that cannot be used.
    """
    started, cpu_started = time.monotonic(), time.process_time()
    domains = curated_domains(curated)
    if config.train and kept_tokenizer:
        progress.say(
            "  tokenize: the trained tokenizer stays: training has begun with it (--from tokenize trains anew)"
        )
        tokenizer, extension = import_tokenizer(kept_tokenizer, config.special, out / "tokenizer"), None
    else:
        tokenizer, extension = _make_tokenizer(config, curated, out, base_folder, seed, progress)
    encoder = Encoder(tokenizer, _sample_texts(curated, domains))
    files = {(domain, split): curated_files(curated, domain, split) for domain in domains for split in _SPLITS}
    if encoder.reason:
        progress.say(f"  tokenize: tokenizers itself encodes, several times slower: {encoder.reason}")
    counts = _write_domains(config, files, out, encoder, tokenizer.vocab_size, seed, progress)
    result = {
        "tokenizer": _describe(config, tokenizer, encoder, extension),
        "domains": counts,
        "seconds": round(time.monotonic() - started, 3),
        "cpu_seconds": round(time.process_time() - cpu_started, 3),
    }
    if extension:
        heldout = {key: paths for key, paths in files.items() if key[1] == "heldout"}
        base = _write_base(config, heldout, out / BASE_FOLDER, extension, seed, progress)
        for domain, splits in counts.items():
            splits["heldout"]["base_tokens_per_byte"] = base[domain]["heldout"]["tokens_per_byte"]
    write_json(out / "tokens.json", result)
    return result


def _write_domains(
    config: TokenizerConfig,
    files: dict[tuple[str, str], list[Path]],
    out: Path,
    encoder: Encoder,
    vocab_size: int,
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    """Encodes files by (domain, split) into shards; returns what tokens.json says of the domains."""
    counts: dict[str, Any] = {domain: {} for domain, _ in files}
    total = sum(text_bytes(path) for paths in files.values() for path in paths)
    with (
        progress.task("tokenize", total, "bytes") as task,
        ThreadPoolExecutor(config.threads or available_cores()) as pool,
    ):
        for (domain, split), paths in files.items():
            # Held-out text is measured, all of it alike.
            encoded = _encoded(paths, encoder, pool, config.weights if split == "train" else [])
            shuffle = _make_shuffle(config, out / domain, split, vocab_size, paths, seed)
            counts[domain][split] = _write_split(out / domain, split, vocab_size, encoded, shuffle, task)
    return counts


def _write_base(
    config: TokenizerConfig,
    heldout: dict[tuple[str, str], list[Path]],
    out: Path,
    extension: Extension,
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    """Held-out documents in the tokens of the tokenizer that was extended, and what new rows begin as."""
    old = extension.old
    encoder = Encoder(old)
    counts = _write_domains(config, heldout, out, encoder, old.vocab_size, seed, progress)
    mean_rows(extension.facts["init"], old.vocab_size, extension.parts).write(out / ROWS_FILE)
    write_json(out / "tokens.json", {"tokenizer": _describe(config, old, encoder, None), "domains": counts})
    return counts


def _make_tokenizer(
    config: TokenizerConfig, curated: Path, out: Path, base_folder: Path | None, seed: int, progress: Progress
) -> tuple[Tokenizer, Extension | None]:
    folder = out / "tokenizer"
    if config.train:
        return train_tokenizer(config.train, config.special, curated, folder, seed=seed, progress=progress), None
    source = config.path or base_folder
    if source is None:
        raise RecipeError("there is no tokenizer: set tokenizer.train or tokenizer.path, or give a base checkpoint")
    if not config.extend:
        return import_tokenizer(source, config.special, folder), None
    old = import_tokenizer(source, config.special, out / BASE_FOLDER / "tokenizer")
    samples = _sample_texts(curated, curated_domains(curated))
    extension = extend_tokenizer(
        config.extend, config.special, old, curated, folder, seed=seed, samples=samples, progress=progress
    )
    return extension.tokenizer, extension


def _sample_texts(curated: Path, domains: list[str]) -> Iterator[str]:
    """The beginnings of the first documents of each domain."""
    for domain in domains:
        first = [*curated_files(curated, domain, "train"), *curated_files(curated, domain, "heldout")][0]
        for batch in islice(read_rows(first, ["text"]), 1):
            yield from (text[:_SAMPLE_CHARACTERS] for text in batch["text"][:_SAMPLE_TEXTS].fill_null("").to_pylist())


def _make_shuffle(
    config: TokenizerConfig, folder: Path, split: str, vocab_size: int, paths: list[Path], seed: int
) -> DiskShuffle | None:
    """What shuffles a split on disk, None where it stays in the order of the curated files."""
    if not config.shuffle or split != "train":
        return None
    dtype = stored_dtype(vocab_size)
    # Two bytes a token at least, as good tokenizers make four and poor ones one.
    expected_bytes = sum(map(text_bytes, paths)) * dtype.itemsize // 2
    temporary = folder / f".{split}-shuffle"
    return DiskShuffle(temporary, dtype, (seed, folder.name, split), config.shuffle_memory_bytes, expected_bytes)


class _Documents(NamedTuple):
    """Some documents as `ShardWriter.extend` takes them."""

    tokens: np.ndarray
    docs: pa.Table


def _encoded(
    paths: list[Path], encoder: Encoder, pool: ThreadPoolExecutor, weights: Sequence[str] = ()
) -> Iterator[_Documents]:
    """Documents in their order, encoded on all cores; a few batches are under way at a time, however long the files."""
    under_way: deque[Future[_Documents]] = deque()
    for path in paths:
        columns = [*_COLUMNS, *(present_columns(path, stored_columns(weights)) if weights else ())]
        for batch in read_rows(path, columns):
            under_way.append(pool.submit(_encode, encoder, batch, weights))
            if len(under_way) > _BATCHES_UNDER_WAY:
                yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()


def _encode(encoder: Encoder, batch: pa.RecordBatch, weights: Sequence[str]) -> _Documents:
    texts = batch["text"].fill_null("").cast(pa.large_string())
    tokens, lengths = encoder.encode(texts)
    sizes = pc.call_function("binary_length", [texts])
    columns = [batch["id"], batch["source"], batch["lang"], sizes, lengths]
    return _Documents(tokens, docs_table(columns, document_weights(batch, weights)))


def _write_split(
    folder: Path, split: str, vocab_size: int, encoded: Iterator[_Documents], shuffle: DiskShuffle | None, task: Task
) -> dict[str, Any]:
    """Writes a split's shards; returns its part of tokens.json. Fertility is `tokens_per_byte`."""
    with ShardWriter(folder, split, vocab_size) as writer, shuffle or nullcontext():
        for tokens, docs in encoded:
            (shuffle.add if shuffle else writer.extend)(tokens, docs)
            task.advance(int(docs["bytes"].to_numpy().sum(dtype=np.int64)), note=folder.name)
        for tokens, docs in shuffle.batches() if shuffle else ():
            writer.extend(tokens, docs)
    weights = {
        "tokens_per_epoch": round(writer.tokens_per_epoch),
        "weighted_documents": writer.weighted,
        "unread_documents": writer.unread,
    }
    return {
        "documents": writer.documents,
        "bytes": writer.bytes,
        "tokens": writer.tokens,
        "tokens_per_byte": round(writer.tokens / writer.bytes, 4) if writer.bytes else None,
        **(weights if writer.weighted else {}),
    }


def _describe(
    config: TokenizerConfig, tokenizer: Tokenizer, encoder: Encoder, extension: Extension | None
) -> dict[str, Any]:
    return {
        "kind": "trained" if config.train else "extended" if extension else "loaded",
        "fingerprint": fingerprint_file(tokenizer.folder / "tokenizer.json"),
        "vocab_size": tokenizer.vocab_size,
        "eod": tokenizer.eod,
        "eod_id": tokenizer.eod_id,
        "fim": tokenizer.fim,
        "encoder": encoder.name,
        "encoder_reason": encoder.reason,
        **({"extends": extension.facts} if extension else {}),
    }
