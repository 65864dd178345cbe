"""The tokenize stage: a tokenizer, then every curated document through it into shards."""

import os
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aurora_m.workspace import Progress, RecipeError, Task, fingerprint_file, write_json

from .config import TokenizerConfig
from .curated import curated_domains, curated_files, read_rows, text_bytes
from .encoder import Encoder
from .shards import ShardWriter
from .tokenizer import Tokenizer, import_tokenizer, train_tokenizer

_COLUMNS = ["id", "text", "source", "lang"]
_SPLITS = ("train", "heldout")
_BATCHES_UNDER_WAY = 8
_SAMPLE_TEXTS, _SAMPLE_CHARACTERS = 16, 20_000  # of each domain, on which the fast encoder must prove itself


def tokenize(
    config: TokenizerConfig,
    curated: Path,
    out: Path,
    *,
    base_folder: Path | None = None,
    seed: int = 0,
    progress: Progress,
) -> dict[str, Any]:
    """Writes `out/tokenizer/`, `out/<domain>/{train,heldout}-*` and `out/tokens.json`, whose content it returns.

    The same documents give the same files, whatever the number of cores. Memory does not grow with the corpus.
    `base_folder` is the base checkpoint's, for a recipe that neither trains nor names a tokenizer.

    Raises:
        RecipeError: the recipe's tokenizer does not exist, or there is none.
        DataError: no curated documents, a damaged file, a tokenizer that cannot be used.
    """
    started, cpu_started = time.monotonic(), time.process_time()
    domains = curated_domains(curated)
    tokenizer = _make_tokenizer(config, curated, out / "tokenizer", base_folder, seed, progress)
    encoder = Encoder(tokenizer, _sample_texts(curated, domains))
    files = {(domain, split): curated_files(curated, domain, split) for domain in domains for split in _SPLITS}
    total = sum(text_bytes(path) for paths in files.values() for path in paths)
    counts: dict[str, Any] = {domain: {} for domain in domains}
    with progress.task("tokenize", total, "bytes") as task, ThreadPoolExecutor(_cores()) as pool:
        for (domain, split), paths in files.items():
            encoded = _encoded(paths, encoder, pool)
            counts[domain][split] = _write_split(out / domain, split, tokenizer.vocab_size, encoded, task)
    result = {
        "tokenizer": _describe(config, tokenizer, encoder),
        "domains": counts,
        "seconds": round(time.monotonic() - started, 3),
        "cpu_seconds": round(time.process_time() - cpu_started, 3),
    }
    write_json(out / "tokens.json", result)
    return result


def _make_tokenizer(
    config: TokenizerConfig, curated: Path, out: Path, base_folder: Path | None, seed: int, progress: Progress
) -> Tokenizer:
    if config.train:
        return train_tokenizer(config.train, config.special, curated, out, seed=seed, progress=progress)
    if config.path:
        return import_tokenizer(config.path, config.special, out)
    if base_folder is None:
        raise RecipeError("there is no tokenizer: set tokenizer.train or tokenizer.path, or give a base checkpoint")
    return import_tokenizer(base_folder, config.special, out)


def _sample_texts(curated: Path, domains: list[str]) -> Iterator[str]:
    """The beginnings of the first documents of each domain."""
    for domain in domains:
        first = [*curated_files(curated, domain, "train"), *curated_files(curated, domain, "heldout")][0]
        for batch in islice(read_rows(first, ["text"]), 1):
            yield from (text[:_SAMPLE_CHARACTERS] for text in batch["text"][:_SAMPLE_TEXTS].fill_null("").to_pylist())


class _Rows(NamedTuple):
    """Some documents with what was made of them; `sizes` are the UTF-8 bytes of the texts."""

    ids: list[str]
    sources: list[str]
    langs: list[str | None]
    sizes: list[int]
    tokens: list[np.ndarray]


def _encoded(paths: list[Path], encoder: Encoder, pool: ThreadPoolExecutor) -> Iterator[_Rows]:
    """Documents in their order, encoded on all cores; a few batches are under way at a time, however long the files."""
    under_way: deque[Future[_Rows]] = deque()
    for path in paths:
        for batch in read_rows(path, _COLUMNS):
            under_way.append(pool.submit(_encode, encoder, batch))
            if len(under_way) > _BATCHES_UNDER_WAY:
                yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()


def _encode(encoder: Encoder, batch: pa.RecordBatch) -> _Rows:
    texts = batch["text"].fill_null("")
    sizes = pc.call_function("binary_length", [texts]).to_pylist()
    ids, sources, langs = (batch[name].to_pylist() for name in ("id", "source", "lang"))
    return _Rows(ids, sources, langs, sizes, encoder.encode_batch(texts.to_pylist()))


def _write_split(folder: Path, split: str, vocab_size: int, encoded: Iterator[_Rows], task: Task) -> dict[str, Any]:
    """Writes a split's shards; returns its part of tokens.json. Fertility is `tokens_per_byte`."""
    with ShardWriter(folder, split, vocab_size) as writer:
        for rows in encoded:
            for id, source, lang, size, tokens in zip(*rows, strict=True):
                writer.append(tokens, id=id, source=source, lang=lang, size=size)
            task.advance(sum(rows.sizes), note=folder.name)
    return {
        "documents": writer.documents,
        "bytes": writer.bytes,
        "tokens": writer.tokens,
        "tokens_per_byte": round(writer.tokens / writer.bytes, 4) if writer.bytes else None,
    }


def _describe(config: TokenizerConfig, tokenizer: Tokenizer, encoder: Encoder) -> dict[str, Any]:
    return {
        "kind": "trained" if config.train else "loaded",
        "fingerprint": fingerprint_file(tokenizer.folder / "tokenizer.json"),
        "vocab_size": tokenizer.vocab_size,
        "eod": tokenizer.eod,
        "eod_id": tokenizer.eod_id,
        "fim": tokenizer.fim,
        "encoder": encoder.name,
    }


def _cores() -> int:
    """Cores this process may use, which in a container or a batch job is fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
