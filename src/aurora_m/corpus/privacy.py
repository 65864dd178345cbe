"""Personal data out of texts: e-mail, phone, IP addresses, keys and tokens, authors in page headers.

What is found becomes a typed placeholder. Two steps: Rust regular expressions over the whole column (no GIL) say which
texts may hold anything; only these, a few in a hundred, are read by Python's, whose look-around and checks decide.
Redaction is idempotent, and what becomes of a text depends on nothing but the text.
"""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from .language_settings import LanguageSettings
from .personal_data import Rule, rules_for

PLACEHOLDERS = {"key": "<KEY>", "email": "<EMAIL>", "ip": "<IP>", "phone": "<PHONE>", "author": "<AUTHOR>"}
KINDS = tuple(PLACEHOLDERS)

_MOST_ROUNDS = 64
_MOST_HEADER = 16384
_HEADER = re.compile(r"---[ \t]*\n(?:(?!---[ \t]*$).*\n)*?---[ \t]*$", re.MULTILINE)


def redact_pass(
    texts: pa.LargeStringArray, settings: LanguageSettings | None, kinds: Sequence[str] = KINDS
) -> tuple[pa.LargeStringArray, dict[str, int]]:
    """Replaces personal data by placeholders.

    Args:
        texts: the batch.
        settings: the language's, for its phone forms and version words; None knows international forms only.
        kinds: which of KINDS to look for.

    Returns:
        the new texts, and how many spans of each kind were replaced.
    """
    counts = dict.fromkeys(kinds, 0)
    series = pl.Series(pl.from_arrow(texts))
    rules = [rule for rule in rules_for(settings) if rule.kind in kinds]
    found = [series.str.contains(rule.candidate).fill_null(False).to_numpy() for rule in rules]
    suspects = np.flatnonzero(np.any(found, axis=0)) if rules else np.zeros(0, np.int64)
    if not len(suspects):
        return texts, counts
    redacted = []
    for text, which in zip(series.gather(suspects).to_list(), np.stack(found)[:, suspects].T, strict=True):
        new, spans = _redact(text, [rule for rule, may in zip(rules, which, strict=True) if may])
        redacted.append(new)
        for kind, number in spans.items():
            counts[kind] += number
    mask = np.zeros(len(texts), bool)
    mask[suspects] = True
    new_texts = pa.array(redacted, pa.large_string())
    return pc.replace_with_mask(texts, pa.array(mask), new_texts), counts  # pyright: ignore[reportAttributeAccessIssue]


def _redact(text: str, rules: list[Rule]) -> tuple[str, Counter]:
    """The text without what the rules find, and how many spans of each kind that was."""
    spans: Counter = Counter()
    # A number taken out may free its neighbour (which a digit beside it had disguised): until nothing changes.
    for _ in range(_MOST_ROUNDS):
        before = text
        for rule in rules:
            text = _apply(rule, text, spans)
        if text == before:
            break
    return text, spans


def _apply(rule: Rule, text: str, spans: Counter) -> str:
    def replace(match: re.Match[str]) -> str:
        if not rule.accepts(match):
            return match[0]
        spans[rule.kind] += 1
        group = "span" if rule.pattern.groups else 0
        begin, end = match.start(group) - match.start(), match.end(group) - match.start()
        return match[0][:begin] + PLACEHOLDERS[rule.kind] + match[0][end:]

    if rule.header_only:
        header = _HEADER.match(text, 0, _MOST_HEADER)
        return rule.pattern.sub(replace, header[0]) + text[header.end() :] if header else text
    if rule.literal:
        lines = text.split("\n")
        return "\n".join(rule.pattern.sub(replace, line) if rule.literal in line else line for line in lines)
    return rule.pattern.sub(replace, text)
