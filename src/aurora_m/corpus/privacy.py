"""Personal data out of texts: keys and tokens, e-mail, IP addresses, accounts, cards, ids, phones, authors in headers.

What is found becomes a typed placeholder or a pseudonym. Two steps, the first without the GIL: `suspects.py` marks the
lines that bear a trace of something, and Rust regular expressions the texts that may hold keys; only these, a few in a
hundred, are read by Python's regular expressions, whose look-around and checks decide.
Redaction is idempotent, and what becomes of a text depends on nothing but the text (and the seed of pseudonyms).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from .language_settings import LanguageSettings
from .personal_data import AUTHOR_FIELDS, KEY_RULES, KeyRule, Rule, rules_for
from .pseudonyms import Pseudonyms
from .segments import text_buffers
from .suspects import find_suspects

PLACEHOLDERS = {
    "key": "<KEY>",
    "email": "<EMAIL>",
    "ip": "<IP>",
    "iban": "<IBAN>",
    "card": "<CARD>",
    "national_id": "<NATIONAL_ID>",
    "phone": "<PHONE>",
    "author": "<AUTHOR>",
}
KINDS = tuple(PLACEHOLDERS)
Style = Literal["placeholder", "pseudonym"]

_MOST_ROUNDS = 64


class Span(NamedTuple):
    """Something found, and what takes its place. Where it begins and ends is in characters or in bytes of the text."""

    start: int
    end: int
    kind: str
    replacement: str


Replace = Callable[[str, str], str | None]
"""From a kind and a value to what takes its place; None if it may stay."""


def redact_pass(
    texts: pa.LargeStringArray,
    settings: LanguageSettings | None,
    kinds: Sequence[str] = KINDS,
    style: Style = "placeholder",
    seed: int = 0,
) -> tuple[pa.LargeStringArray, dict[str, int]]:
    """Replaces personal data.

    Args:
        texts: the batch.
        settings: the language's, for its national forms and version words; None knows international forms only.
        kinds: which of KINDS to look for.
        style: `placeholder` (`<EMAIL>`) or `pseudonym` (see pseudonyms.py).
        seed: of the pseudonyms.

    Returns:
        the new texts, and how many spans of each kind were replaced.
    """
    counts = dict.fromkeys(kinds, 0)
    spans = _spans_of_batch(texts, settings, kinds, _replacer(settings, style, seed))
    if not spans:
        return texts, counts
    for _, span in spans:
        counts[span.kind] += 1
    return _spliced(texts, spans), counts


def find_spans(text: str, settings: LanguageSettings | None, kinds: Sequence[str] = KINDS) -> list[Span]:
    """What `redact_pass` replaces in a text, in the order of the text; starts and ends are in characters."""
    found = _spans_of_batch(pa.array([text], pa.large_string()), settings, kinds, _replacer(settings, "placeholder", 0))
    return _in_characters(text, [span for _, span in found])


def _replacer(settings: LanguageSettings | None, style: Style, seed: int) -> Replace:
    if style == "placeholder":
        return lambda kind, value: PLACEHOLDERS[kind]
    pseudonyms = Pseudonyms(settings, seed)

    def replace(kind: str, value: str) -> str | None:
        if kind == "key":
            # Behind the name of a key, an invented value without the blanks of the real one looks like a key.
            return None if pseudonyms.holds_own(value) else PLACEHOLDERS[kind]
        return None if pseudonyms.is_own(value) else pseudonyms(kind, value)

    return replace


# Finding -------------------------------------------------------------------------------------------------------------


def _spans_of_batch(
    texts: pa.LargeStringArray, settings: LanguageSettings | None, kinds: Sequence[str], replace: Replace
) -> list[tuple[int, Span]]:
    """Numbers of texts and what is found in them, in the order of the batch; starts and ends are bytes of the text."""
    data, offsets = text_buffers(texts)
    spans: list[tuple[int, Span]] = []
    with_keys = _texts_with_keys(texts) if "key" in kinds else {}
    for text, value in with_keys.items():
        spans += [(text, span) for span in _in_bytes(value, _spans_beside_keys(value, settings, kinds, replace))]

    suspects = find_suspects(texts, AUTHOR_FIELDS if "author" in kinds else ())
    raw, begins = data.data, offsets.tolist()
    for text, start, end in zip(*(column.tolist() for column in suspects[4:]), strict=True):
        replacement = replace("author", str(raw[start:end], "utf-8"))
        if text not in with_keys and replacement is not None:
            begin = begins[text]
            spans.append((text, Span(start - begin, end - begin, "author", replacement)))

    rules = [rule for rule in rules_for(settings) if rule.kind in kinds]
    by_traces = [[rule for rule in rules if rule.traces & traces] for traces in range(256)]
    for text, start, end, traces in zip(*(column.tolist() for column in suspects[:4]), strict=True):
        if text not in with_keys and by_traces[traces]:
            line = str(raw[start:end], "utf-8")
            found = _in_bytes(line, _spans_of_line(line, by_traces[traces], replace))
            begin = start - begins[text]
            spans += [(text, span._replace(start=span.start + begin, end=span.end + begin)) for span in found]
    return sorted(spans)


def _spans_of_line(line: str, rules: list[Rule], replace: Replace) -> list[Span]:
    spans: list[Span] = []
    # A number taken out may free its neighbour (which a digit beside it had disguised): until nothing changes.
    for _ in range(_MOST_ROUNDS):
        before = line
        for rule in rules:
            if rule.pattern.search(line) and (found := list(_matches(rule, line, replace))):
                line, spans = _with(line, found), _after(spans, found)
        if line == before:
            break
    return spans


def _matches(rule: Rule | KeyRule, text: str, replace: Replace) -> Iterable[Span]:
    kind = rule.kind if isinstance(rule, Rule) else "key"
    group = "span" if "span" in rule.pattern.groupindex else 0
    for match in rule.pattern.finditer(text):
        if rule.accepts(match):
            # A bracket that closes after the number is not the number's.
            opened = match[group][0] == "(" and ")" not in match[group]
            replacement = replace(kind, match[group][opened:])
            if replacement is not None:
                yield Span(match.start(group) + opened, match.end(group), kind, replacement)


def _with(text: str, spans: list[Span]) -> str:
    """The text with the replacements of spans in it, which do not overlap and are in order."""
    parts, copied = [], 0
    for span in spans:
        parts += [text[copied : span.start], span.replacement]
        copied = span.end
    return "".join([*parts, text[copied:]])


def _after(first: list[Span], second: list[Span]) -> list[Span]:
    """Spans of a text that do at once what `first` does to it and then `second` to what that made of it."""
    both, shift, passed = [], 0, 0

    def grown(span: Span) -> int:
        return len(span.replacement) - (span.end - span.start)

    for span in second:
        while passed < len(first) and first[passed].start + shift + len(first[passed].replacement) <= span.start:
            both.append(first[passed])
            shift += grown(first[passed])
            passed += 1
        start = span.start - shift
        while passed < len(first) and first[passed].start + shift < span.end:
            start = min(start, first[passed].start)
            shift += grown(first[passed])
            passed += 1
        end = max(span.end - shift, first[passed - 1].end if passed else 0)
        both.append(span._replace(start=start, end=end))
    return both + first[passed:]


def _in_bytes(text: str, spans: list[Span]) -> list[Span]:
    """Spans of a text with starts and ends in bytes of its UTF-8."""
    if text.isascii():
        return spans
    converted, characters, size = [], 0, 0
    for span in spans:
        start = size + len(text[characters : span.start].encode())
        characters, size = span.end, start + len(text[span.start : span.end].encode())
        converted.append(span._replace(start=start, end=size))
    return converted


def _in_characters(text: str, spans: list[Span]) -> list[Span]:
    """Spans of a text whose starts and ends are bytes of its UTF-8, with starts and ends in characters."""
    if text.isascii():
        return spans
    raw, converted, characters, size = text.encode(), [], 0, 0
    for span in spans:
        start = characters + len(raw[size : span.start].decode())
        size, characters = span.end, start + len(raw[span.start : span.end].decode())
        converted.append(span._replace(start=start, end=characters))
    return converted


# Keys ----------------------------------------------------------------------------------------------------------------


def _texts_with_keys(texts: pa.LargeStringArray) -> dict[int, str]:
    """Texts that hold keys, by their number."""
    series = pl.Series(pl.from_arrow(texts))
    found = {}
    for rule in KEY_RULES:
        suspects = series.str.contains(rule.candidate).fill_null(False).arg_true()
        suspects = suspects.filter(series.gather(suspects).str.contains(rule.nearer))
        for number in suspects.to_list():
            if any(rule.accepts(match) for match in rule.pattern.finditer(series[number])):
                found[number] = series[number]
    return found


def _spans_beside_keys(
    text: str, settings: LanguageSettings | None, kinds: Sequence[str], replace: Replace
) -> list[Span]:
    """Everything in one text that holds keys, which may run over several lines: keys first, then all the rest."""
    spans: list[Span] = []
    rest = [kind for kind in kinds if kind != "key"]
    for _ in range(_MOST_ROUNDS):
        before = text
        for rule in KEY_RULES:
            found = list(_matches(rule, text, replace))
            text, spans = _with(text, found), _after(spans, found)
        others = _spans_of_batch(pa.array([text], pa.large_string()), settings, rest, replace)
        found = _in_characters(text, [span for _, span in others])
        text, spans = _with(text, found), _after(spans, found)
        if text == before:
            break
    return spans


# Replacing -----------------------------------------------------------------------------------------------------------


def _spliced(texts: pa.LargeStringArray, spans: list[tuple[int, Span]]) -> pa.LargeStringArray:
    """The texts with the replacements in them; all others as they were."""
    data, offsets = text_buffers(texts)
    raw, begins = data.data, offsets.tolist()
    parts, copied = [], begins[0]
    growth = np.zeros(len(texts), np.int64)
    for text, span in spans:
        value = span.replacement.encode()
        parts += [raw[copied : begins[text] + span.start], value]
        copied = begins[text] + span.end
        growth[text] += len(value) - (span.end - span.start)
    parts.append(raw[copied : begins[-1]])
    new_offsets = offsets - offsets[0] + np.concatenate([[0], np.cumsum(growth)])
    buffers = [None, pa.py_buffer(new_offsets), pa.py_buffer(b"".join(parts))]
    new = pa.Array.from_buffers(pa.large_string(), len(texts), buffers)
    return pc.if_else(texts.is_valid(), new, None) if texts.null_count else new  # pyright: ignore[reportAttributeAccessIssue]
