"""Fertility: how many tokens a tokenizer needs for a byte, a character, a word of text, beside other tokenizers.

A word is what curation counts as one: a run of letters, marks and digits, or a single Han or kana character.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.table import Table

from aurora_m.corpus import ordered_threads, read_documents, segment
from aurora_m.workspace import Progress, RecipeError, available_cores, format_count, read_json

from .config import SpecialTokens
from .curated import curated_domains, curated_files, read_rows
from .encoder import Encoder
from .stage import BASE_FOLDER
from .tokenizer import import_tokenizer

_UNITS = ("bytes", "characters", "words")


def measure_fertility(
    tokenizer: str,
    against: Iterable[str] = (),
    texts: Iterable[str] = (),
    *,
    limit: int | None = None,
    progress: Progress,
) -> dict[str, Any]:
    """Counts tokens, bytes, characters and words of documents with several tokenizers.

    Args:
        tokenizer: a run's folder, a tokenizer's folder or tokenizer.json, or a Hugging Face id. With a run, the
            tokenizer of its base model stands beside it.
        against: further tokenizers, in the same forms.
        texts: files of documents (.jsonl(.gz, .zst), .parquet, text) or folders of one kind; without any, the run's
            held-out documents, by domain.
        limit: at most so many documents of each.

    Returns:
        `{"tokenizers": {name: vocab_size}, "texts": {name: {"documents", "bytes", "characters", "words", "tokens":
        {tokenizer: count}}}}`; the end-of-document token does not count.

    Raises:
        RecipeError: there is nothing to count, or no such tokenizer.
        DataError: a file is damaged.
    """
    run = Path(tokenizer) if (Path(tokenizer) / "tokens" / "tokens.json").is_file() else None
    texts = list(texts)
    if run is None and not texts:
        raise RecipeError(f"{tokenizer} is no run with documents of its own; name files of documents with --text")
    with TemporaryDirectory() as temporary:
        encoders = _open(_sources(tokenizer, run, against), Path(temporary))
        found: dict[str, Any] = {}
        batches = _files(texts, limit) if texts else _heldout(run, limit) if run else iter(())
        with progress.task("fertility", None, "bytes") as task:
            for name, batch in batches:
                row = found.setdefault(name, {"documents": 0} | dict.fromkeys(_UNITS, 0) | {"tokens": {}})
                _count(row, batch, encoders)
                task.advance(int(pc.call_function("binary_length", [batch]).to_numpy().sum()), note=name)
        sizes = {name: encoder.tokenizer.vocab_size for name, encoder in encoders.items()}
    return {"tokenizers": sizes, "texts": found}


def describe_fertility(measured: dict[str, Any]) -> Table:
    """The counts as a table for the terminal: tokens per byte, character and word; the first tokenizer's come first."""
    names = [*measured["tokenizers"]]
    table = Table(title="Tokens per byte · character · word (tokens against the first)", title_justify="left")
    table.add_column("text")
    table.add_column("bytes", justify="right")
    for name in names:
        table.add_column(f"{name} ({format_count(measured['tokenizers'][name])})", justify="right")
    for text, row in measured["texts"].items():
        first = row["tokens"][names[0]]
        cells = []
        for name in names:
            tokens = row["tokens"][name]
            figures = " · ".join(f"{tokens / row[unit]:.3f}" if row[unit] else "–" for unit in _UNITS)
            cells.append(figures if name == names[0] or not first else f"{figures} ({tokens / first:.2f}x)")
        table.add_row(text, format_count(row["bytes"]), *cells)
    return table


def _sources(tokenizer: str, run: Path | None, against: Iterable[str]) -> dict[str, str]:
    """Names of the tokenizers, and where they lie."""
    if run is None:
        return {tokenizer: tokenizer} | {one: one for one in against}
    sources = {run.name: str(run / "tokens" / "tokenizer")}
    base = run / "tokens" / BASE_FOLDER / "tokenizer"
    recipe = read_json(run / "recipe.json") if (run / "recipe.json").is_file() else {}
    base_path = (recipe.get("base") or {}).get("path")
    if base.is_dir():
        sources["base"] = str(base)
    elif base_path:
        sources["base"] = base_path
    return sources | {one: _of_run(one) for one in against}


def _of_run(path: str) -> str:
    inside = Path(path) / "tokens" / "tokenizer"
    return str(inside) if inside.is_dir() else path


def _open(sources: dict[str, str], temporary: Path) -> dict[str, Encoder]:
    encoders = {}
    for number, (name, source) in enumerate(sources.items()):
        folder = temporary / str(number)
        encoders[name] = Encoder(import_tokenizer(_of_run(source), SpecialTokens(), folder))
    return encoders


def _heldout(run: Path, limit: int | None) -> Iterator[tuple[str, pa.LargeStringArray]]:
    for domain in curated_domains(run / "curated"):
        left = limit
        for path in curated_files(run / "curated", domain, "heldout"):
            for batch in read_rows(path, ["text"]):
                texts = batch["text"].fill_null("").cast(pa.large_string())[:left]
                left = None if left is None else left - len(texts)
                yield domain, texts


def _files(paths: list[str], limit: int | None) -> Iterator[tuple[str, pa.LargeStringArray]]:
    with ordered_threads(available_cores()) as in_order:
        for path in paths:
            for batch in read_documents(path, in_order, limit):
                yield path, batch.column("text").cast(pa.large_string())


def _count(row: dict[str, Any], texts: pa.LargeStringArray, encoders: dict[str, Encoder]) -> None:
    row["documents"] += len(texts)
    row["bytes"] += int(pc.call_function("binary_length", [texts]).to_numpy().sum())
    row["characters"] += int(pc.call_function("utf8_length", [texts]).to_numpy().sum())
    row["words"] += int(segment(texts).word_offsets[-1])
    for name, encoder in encoders.items():
        tokens = int(encoder.encode(texts).lengths.sum()) - len(texts)
        row["tokens"][name] = row["tokens"].get(name, 0) + tokens
