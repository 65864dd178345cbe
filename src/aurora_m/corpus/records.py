"""Records (JSON objects, parquet rows, files) into documents; what is no document is counted, never fatal."""

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from ..workspace import RecipeError
from .config import DOCUMENT_FIELDS, CurateConfig, SourceConfig
from .documents import DOCUMENT_SCHEMA, byte_lengths
from .streams import LineBlock, line_breaks

# Half of a surrogate pair: parsers differ in what they make of a lone one, so Python's decides.
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
_MOST_LABEL_CHARACTERS = 2000
_MOST_DIGITS = 4000
_BLANK = b" \t\r"


@dataclass
class Parsed:
    """Documents of one piece of a source, and the records that gave none: reason -> [records, bytes]."""

    documents: pa.RecordBatch
    rejected: dict[str, list[int]] = field(default_factory=dict)
    hint: str = ""
    """What may help whoever wonders why nothing came out: the fields seen, the template's complaint."""
    read_bytes: int = 0
    seconds: float = 0.0

    def reject(self, reason: str, size: int, records: int = 1) -> None:
        """Counts records as rejected."""
        count = self.rejected.setdefault(reason, [0, 0])
        count[0] += records
        count[1] += size


@dataclass(frozen=True)
class RecordForm:
    """How the records of one source become documents."""

    domain: str
    source: SourceConfig
    name: str
    license: str | None
    lang: str | None
    max_document_bytes: int

    def __getstate__(self) -> dict[str, Any]:
        """What workers are sent: compiled templates are left out, and compiled again there."""
        return {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}

    @cached_property
    def fields(self) -> dict[str, str]:
        """Our column -> their field; `meta.*` columns end up in the `meta` object."""
        same = {name: name for name in DOCUMENT_FIELDS}
        return {**same, "meta.code_lang": "code_lang", **self.source.fields}

    @cached_property
    def render(self) -> Callable[[Mapping], str] | None:
        """The text of a record by the source's template, None without one; of a pair both sides, joined."""
        if self.source.pairs is not None:
            return self.source.pairs.join
        template = self.source.template
        if template is None:
            return None
        several = [template] if isinstance(template, str) else template
        renders = [compile_template(one) for one in several]
        if len(renders) == 1:
            return renders[0]
        return lambda record: renders[_hash(json.dumps(record, sort_keys=True, default=str)) % len(renders)](record)

    @cached_property
    def selects(self) -> Callable[..., Any] | None:
        """Whether a record is taken at all, by the source's `where`, None without one."""
        if self.source.where is None:
            return None
        return _compile(self.source.where, "where", lambda env, text: env.compile_expression(text))

    def needs_slow_reader(self, lines: bytes) -> bool:
        """Whether JSON lines hold what a fast parser would silently change: lone surrogates, a text that is no string.

        It may be wrong only to the safe side. Counting is several times faster than one regular expression.
        """
        if (b"\\ud" in lines or b"\\uD" in lines) and _SURROGATE_ESCAPE.search(lines):
            return True
        key = json.dumps(self.fields["text"], ensure_ascii=False).encode()
        unseen = lines.count(key)
        for follows in (b': "', b':"', b": null", b":null"):
            if not unseen:
                return False
            unseen -= lines.count(key + follows)
        return unseen != 0


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "little")


def make_form(source: SourceConfig, name: str, domain: str, lang: str | None, config: CurateConfig) -> RecordForm:
    """The form of a source's records, its template and expression compiled.

    Raises:
        RecipeError: template or expression are not Jinja2.
    """
    form = RecordForm(domain, source, name, source.license, source.lang or lang, config.max_document_bytes)
    _ = form.render, form.selects
    return form


def compile_template(text: str) -> Callable[..., str]:
    """What renders a Jinja2 template; a name it is not given is an error there.

    Raises:
        RecipeError: it is no template.
    """
    return _compile(text, "template", lambda env, text: env.from_string(text).render)


def _compile(text: str, key: str, make: Callable) -> Any:
    from jinja2 import StrictUndefined, TemplateSyntaxError, Undefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    # Plain text comes out, never HTML: escaping is for those who show it.
    # A template that names a missing field is wrong; an expression over one just does not hold.
    undefined = StrictUndefined if key == "template" else Undefined
    environment = ImmutableSandboxedEnvironment(undefined=undefined, keep_trailing_newline=True)
    try:
        return make(environment, text)
    except TemplateSyntaxError as error:
        raise RecipeError(f"sources: {key} {text!r} is not valid Jinja2: {error.message}") from None


def documents_from_lines(block: LineBlock, form: RecordForm) -> Parsed:
    """JSON lines as documents. Compiled where every line is plain and sound, else line by line."""
    columns = None
    if form.render is None and form.selects is None:
        columns = _strict_columns(block, form)
        if columns is None and not form.needs_slow_reader(block.data):
            columns = _lenient_columns(block, form)
    if columns is not None:
        numbers = np.arange(block.first_line, block.first_line + len(columns["text"]))
        parsed = documents_from_columns(columns, numbers, block.file.name, form)
    else:
        parsed = documents_from_records(_json_records(block), block.file.name, form)
    if block.skipped:
        parsed.reject("line_too_long", sum(block.skipped), len(block.skipped))
    if parsed.rejected and not parsed.hint:
        parsed.hint = _fields_seen(block)
    parsed.read_bytes = block.compressed_bytes
    return parsed


def _strict_columns(block: LineBlock, form: RecordForm) -> dict[str, pa.Array] | None:
    """Our columns of JSON lines, by Arrow, which refuses what is not a string; None where it refuses anything."""
    breaks = line_breaks(block.data)
    if (np.diff(breaks) == 1).any():
        return None
    names = dict.fromkeys(form.fields.values())
    schema = pa.schema([(name, pa.large_string() if name == form.fields["text"] else pa.string()) for name in names])
    try:
        table = pj.read_json(
            pa.BufferReader(block.data),
            read_options=pj.ReadOptions(use_threads=False, block_size=len(block.data) + 1),
            parse_options=pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )
        if table.num_rows != len(breaks) + (not block.data.endswith(b"\n")):
            return None
        columns = {name: table.column(name).combine_chunks() for name in names}
        for column in columns.values():
            column.validate(full=True)
        if columns[form.fields["text"]].null_count:  # no text, or a line that is no object: Arrow does not tell
            return None
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
    return {ours: columns[theirs] for ours, theirs in form.fields.items()}


def _lenient_columns(block: LineBlock, form: RecordForm) -> dict[str, pa.Array] | None:
    """Our columns of JSON lines, by polars, which writes out numbers; None where a line is not what it should be."""
    schema = dict.fromkeys(form.fields.values(), pl.String)
    try:
        frame = pl.read_ndjson(block.data, schema=schema)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return None
    if frame.height != block.data.count(b"\n") + (not block.data.endswith(b"\n")):
        return None
    return {ours: _arrow(frame[theirs]) for ours, theirs in form.fields.items()}


def _arrow(series: pl.Series) -> pa.Array:
    return series.to_arrow().cast(pa.large_string())


def _json_records(block: LineBlock) -> Iterable[tuple[int, int, Any]]:
    """Line number, bytes and value of every line that is not blank; a string value is the reason it has none."""
    for number, line in enumerate(block.data.split(b"\n"), block.first_line):
        if not line.strip(_BLANK):
            continue
        try:
            yield number, len(line), _json_value(line)
        except UnicodeDecodeError:
            yield number, len(line), "invalid_utf8"
        except (ValueError, RecursionError):
            yield number, len(line), "not_json"


def _json_value(line: bytes) -> Any:
    value = json.loads(line.decode("utf-8"), parse_int=_integer)
    return value if isinstance(value, dict) else "not_an_object"


def _integer(digits: str) -> int | str:
    """A number, as text where it has more digits than Python turns into one."""
    return int(digits) if len(digits) < _MOST_DIGITS else digits


def documents_from_records(records: Iterable[tuple[int, int, Any]], place: str, form: RecordForm) -> Parsed:
    """Records one by one: (number, bytes, mapping, or the reason there is none).

    A missing id is made of `place` and number.
    """
    rejects = Parsed(_EMPTY)
    rows: list[dict[str, str | None]] = []
    numbers: list[int] = []
    for number, size, record in records:
        try:
            row = record if isinstance(record, str) else _row(record, form)
        except Exception as error:  # whatever a template does with a record it was not written for
            rejects.hint = rejects.hint or f"the template says: {str(error)[:200]}"
            row = "template_failed"
        if isinstance(row, str):
            rejects.reject(row, size)
        else:
            rows.append(row)
            numbers.append(number)
    columns = {ours: pa.array([row[ours] for row in rows], pa.large_string()) for ours in form.fields}
    parsed = documents_from_columns(columns, np.array(numbers, np.int64), place, form)
    for reason, (count, size) in rejects.rejected.items():
        parsed.reject(reason, size, count)
    parsed.hint = rejects.hint
    return parsed


def _row(record: Mapping[str, Any], form: RecordForm) -> dict[str, str | None] | str:
    """Our columns of one record, or the reason it is rejected."""
    if form.selects is not None and not form.selects(record):
        return "not_selected"
    text = form.render(record) if form.render else record.get(form.fields["text"])
    if text is not None and not isinstance(text, str):
        return "text_not_string"
    if text is not None and not _is_unicode(text):
        return "invalid_unicode"
    row = {ours: _label(record.get(theirs)) for ours, theirs in form.fields.items() if ours != "text"}
    return {**row, "text": text}


def _is_unicode(text: str) -> bool:
    """False where half of a surrogate pair is left: no UTF-8 can hold it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _label(value: Any) -> str | None:
    """A value that is shown but not read: text as it is, all else as JSON."""
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text.encode("utf-8", "replace").decode()


def documents_from_columns(columns: dict[str, pa.Array], numbers: np.ndarray, place: str, form: RecordForm) -> Parsed:
    """Columns as documents: rows without text, with too much of it or outside the sample are rejected, missing values
    filled in."""
    sizes = byte_lengths(columns["text"])
    parsed = Parsed(_EMPTY)
    without, too_long = sizes <= 0, sizes > form.max_document_bytes
    if without.any():
        parsed.reject("no_text", 0, int(without.sum()))
    if too_long.any():
        parsed.reject("document_too_long", int(sizes[too_long].sum()), int(too_long.sum()))
    if parsed.rejected:
        keep = ~(without | too_long)
        mask = pa.array(keep)
        columns = {name: column.filter(mask) for name, column in columns.items()}
        numbers = numbers[keep]
    texts = columns["text"]
    labels = {name: _bounded(columns[name]) for name in columns if name != "text"}
    filled = {
        "id": _filled(labels["id"], lambda rows: [f"{place}#{number}" for number in numbers[rows]]),
        "text": texts.cast(pa.large_string()),
        "domain": pa.repeat(pa.scalar(form.domain), len(texts)),
        "source": _filled(labels["source"], lambda rows: [form.name] * len(rows)),
        "url": labels["url"],
        "license": _filled(labels["license"], lambda rows: [form.license] * len(rows)),
        "lang": _filled(labels["lang"], lambda rows: [form.lang] * len(rows)),
        "meta": _meta({name[5:]: labels[name] for name in labels if name.startswith("meta.")}, len(texts)),
    }
    parsed.documents = pa.RecordBatch.from_arrays(
        [filled[name] for name in DOCUMENT_SCHEMA.names], schema=DOCUMENT_SCHEMA
    )
    if form.source.sample < 1:
        taken = np.array([_hash(id) < form.source.sample * 2**64 for id in filled["id"].to_pylist()], np.bool_)
        if not taken.all():
            parsed.reject("not_sampled", int(byte_lengths(texts)[~taken].sum()), int((~taken).sum()))
        parsed.documents = parsed.documents.filter(pa.array(taken))
    return parsed


def _bounded(column: pa.Array) -> pa.Array:
    """A label column as plain strings of bounded length."""
    if len(column) and byte_lengths(column).max() > _MOST_LABEL_CHARACTERS:
        column = pc.utf8_slice_codeunits(column, 0, _MOST_LABEL_CHARACTERS)  # pyright: ignore[reportAttributeAccessIssue]
    return column.cast(pa.string())


def _filled(column: pa.Array, values: Callable[[np.ndarray], list]) -> pa.Array:
    """The column with `values(rows)` where it is null or empty."""
    missing = byte_lengths(column) <= 0
    if not missing.any():
        return column
    given = pa.array(values(np.flatnonzero(missing)), pa.string())
    return pc.replace_with_mask(column, pa.array(missing), given)  # pyright: ignore[reportAttributeAccessIssue]


def _meta(columns: dict[str, pa.Array], n: int) -> pa.Array:
    """A JSON object per row, of the columns that are not null there."""
    given = {name: column.to_pylist() for name, column in columns.items() if column.null_count < len(column)}
    if not given:
        return pa.repeat(pa.scalar("{}"), n)
    rows = zip(*given.values(), strict=True)
    objects = [{name: value for name, value in zip(given, row, strict=True) if value is not None} for row in rows]
    return pa.array([json.dumps(value, ensure_ascii=False) for value in objects], pa.string())


def _fields_seen(block: LineBlock) -> str:
    """The fields of the first record, for a message."""
    for _, _, record in _json_records(block):
        if isinstance(record, dict):
            return f"the records have the fields {', '.join(map(repr, list(record)[:20]))}"
    return ""


_EMPTY = pa.RecordBatch.from_arrays([pa.array([], field.type) for field in DOCUMENT_SCHEMA], schema=DOCUMENT_SCHEMA)
