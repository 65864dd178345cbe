"""Documents out of a source, whatever its kind: pieces of files, read side by side, in order."""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import TypeVar

import numpy as np

from ..workspace import DataError
from .config import CurateConfig, DomainConfig, SourceConfig
from .documents import byte_lengths
from .engine import OrderedMap
from .listing import STDLIB, fingerprint_source, list_files, source_name
from .pairs import Pairs, check_pairs, check_template, documents_of_pairs
from .parquet_files import parquet_pieces
from .records import Parsed, RecordForm, documents_from_lines, documents_from_records, make_form
from .sentence_files import Record, read_conll, read_moses, read_tmx, read_tsv
from .streams import SourceFile, line_blocks, read_whole
from .tree_files import tree_pieces
from .web_archives import documents_from_pages, read_pages

__all__ = ["Source", "fingerprint_source", "open_source"]

_BATCH_DOCUMENTS = 2000
_STDLIB_LICENSE = "PSF-2.0"

Piece = Callable[[], Parsed]
Read = TypeVar("Read", Parsed, Pairs)


class Source:
    """A source that was found and can be read: its files and the form of its records."""

    def __init__(self, config: SourceConfig, form: RecordForm, files: list[SourceFile], max_line_bytes: int) -> None:
        self.config, self.form, self.files, self.max_line_bytes = config, form, files, max_line_bytes

    @property
    def size(self) -> int:
        """Bytes of the files, compressed as they are."""
        return sum(file.size for file in self.files)

    def split(self, most_bytes: int) -> list["Source"]:
        """The source as several, of about so many bytes of files each; a file is never split, nor what has a limit."""
        if self.config.limit_documents or self.config.limit_bytes or self.config.kind == "moses":
            return [self]
        parts: list[list[SourceFile]] = [[]]
        size = 0
        for file in self.files:
            if parts[-1] and size + file.size > most_bytes:
                parts.append([])
                size = 0
            parts[-1].append(file)
            size += file.size
        return [Source(self.config, self.form, files, self.max_line_bytes) for files in parts]

    def read(self, in_order: OrderedMap) -> Iterator[Parsed]:
        """All documents, in the order of the files, in pieces of a few megabytes, up to the source's limits.

        Raises:
            DataError: a file is damaged.
        """
        pairs = self.config.pairs
        if pairs is None:
            pieces = in_order(_timed, self._pieces())
        else:
            checked = in_order(_timed, (partial(check_pairs, piece, pairs) for piece in self._pieces()))
            pieces = documents_of_pairs(checked, pairs, in_order)
        return _limited(pieces, self.config.limit_documents, self.config.limit_bytes)

    def _pieces(self) -> Iterator[Piece]:
        if self.config.kind in ("parquet", "hf"):
            for file in self.files:
                yield from parquet_pieces(file, self.form)
        elif self.config.kind == "warc":
            for file in self.files:
                for pages in read_pages(file, self.form.max_document_bytes):
                    yield partial(documents_from_pages, pages, file, self.form)
        elif self.config.kind == "jsonl":
            for file in self.files:
                yield from _json_pieces(file, self.form, self.max_line_bytes)
        elif self.config.kind in ("conll", "tsv", "tmx", "moses"):
            yield from self._sentence_pieces()
        else:
            yield from tree_pieces(self.files, self.form)

    def _sentence_pieces(self) -> Iterator[Piece]:
        kind, columns, most = self.config.kind, self.config.columns, self.max_line_bytes
        if kind == "moses":
            groups = ((self.files[0], group) for group in read_moses(self.files, columns, most))
        else:
            read = {
                "conll": lambda file: read_conll(file, most, self.form.max_document_bytes),
                "tsv": lambda file: read_tsv(file, columns, most),
                "tmx": lambda file: read_tmx(file, columns, self.form.max_document_bytes),
            }[kind]
            groups = ((file, group) for file in self.files for group in read(file))
        for file, group in groups:
            yield partial(_documents_from_group, group, file, self.form)


def open_source(source: SourceConfig, domain_name: str, domain: DomainConfig, config: CurateConfig) -> Source:
    """Finds a source's files.

    Raises:
        DataError: a path is missing, or holds nothing of the kind.
        RecipeError: its template is not Jinja2, or that of its pairs leaves a side out.
    """
    if source.pairs is not None:
        check_template(source.pairs)
    name = source_name(source)
    if source.path == STDLIB and source.license is None:
        source = source.model_copy(update={"license": _STDLIB_LICENSE})
    try:
        files = list_files(source)
    except DataError as error:
        raise DataError(f"domain {domain_name!r}, source {name!r}: {error}") from None
    except OSError as error:
        raise DataError(f"domain {domain_name!r}, source {name!r}: {source.path} cannot be read: {error}") from None
    return Source(source, make_form(source, name, domain_name, domain.lang, config), files, config.max_line_bytes)


def _timed(piece: Callable[[], Read]) -> Read:
    started = time.perf_counter()
    parsed = piece()
    parsed.seconds = time.perf_counter() - started
    return parsed


def _limited(pieces: Iterable[Parsed], most_documents: int | None, most_bytes: int | None) -> Iterator[Parsed]:
    """Pieces up to the document that reaches a limit.

    What follows it in its piece is left uncounted, as all that is never read: how much that is says something of the
    size of pieces and nothing of the source.
    """
    documents = size = 0
    for parsed in pieces:
        sizes = byte_lengths(parsed.documents.column("text"))
        # A document is taken while what came before it is below the limit.
        before = size + np.cumsum(sizes) - sizes
        taken = len(sizes) if most_bytes is None else int(np.searchsorted(before, most_bytes))
        taken = taken if most_documents is None else min(taken, most_documents - documents)
        documents, size = documents + taken, size + int(sizes[:taken].sum())
        parsed.documents = parsed.documents.slice(0, taken)
        yield parsed
        if documents == most_documents or (most_bytes is not None and size >= most_bytes):
            return


def _json_pieces(file: SourceFile, form: RecordForm, max_line_bytes: int) -> Iterator[Piece]:
    blocks = line_blocks(file, max_line_bytes)
    for block in blocks:
        if block.first_line == 1 and block.data.lstrip()[:1] == b"[":
            blocks.close()
            yield from _array_pieces(file, form, max_line_bytes)
            return
        yield partial(documents_from_lines, block, form)


def _documents_from_group(group: list[Record], file: SourceFile, form: RecordForm) -> Parsed:
    parsed = documents_from_records(group, file.name, form)
    parsed.read_bytes = sum(size for _, size, _ in group)
    return parsed


def _array_pieces(file: SourceFile, form: RecordForm, most_bytes: int) -> Iterator[Piece]:
    """A file that is one JSON array: read whole, so only where it is small."""
    content = read_whole(file, most_bytes)
    try:
        records = iter(json.loads(content.decode("utf-8")))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file.path} begins like a JSON array but is none: {error}") from None
    number = 1
    while group := list(islice(records, _BATCH_DOCUMENTS)):
        numbered = [
            (number + i, 0, item if isinstance(item, dict) else "not_an_object") for i, item in enumerate(group)
        ]
        number += len(group)
        yield partial(documents_from_records, numbered, file.name, form)
