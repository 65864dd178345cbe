"""The published thresholds of the quality rules, which of them apply, and FineWeb-2's files read as ours.

A threshold is `<signal>_min` or `<signal>_max` of a signal of `quality.py`; None switches its rule off. Which apply:
the published ones below, then the language file's, then the recipe's. docs/curation.md tells what each drops.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from ..workspace import RecipeError
from .language_settings import LanguageSettings

Rules = Literal["text", "code", "pairs"]
Thresholds = dict[str, float | None]

# Gopher (Rae et al. 2021, table A1), quality rules. Its least 50 words are 20 here: short notes are much of what a
# scarce language has. Its stop words are eight of English; here they are the language's, some sixty or more.
GOPHER: Thresholds = {
    "word_count_min": 20,
    "word_count_max": 100_000,
    "mean_word_length_min": 3,
    "mean_word_length_max": 10,
    "symbol_word_ratio_max": 0.1,
    "bullet_lines_max": 0.9,
    "ellipsis_lines_max": 0.3,
    "letter_words_min": 0.8,
    "distinct_stop_words_min": 2,
}
# The same table, repetition rules.
GOPHER_REPETITION: Thresholds = {
    "duplicate_lines_max": 0.3,
    "duplicate_paragraphs_max": 0.3,
    "duplicate_line_characters_max": 0.2,
    "duplicate_paragraph_characters_max": 0.2,
    "top_2_gram_max": 0.2,
    "top_3_gram_max": 0.18,
    "top_4_gram_max": 0.16,
    "duplicate_5_grams_max": 0.15,
    "duplicate_6_grams_max": 0.14,
    "duplicate_7_grams_max": 0.13,
    "duplicate_8_grams_max": 0.12,
    "duplicate_9_grams_max": 0.11,
    "duplicate_10_grams_max": 0.10,
}
# ROOTS (Laurençon et al. 2022) and CulturaX (Nguyen et al. 2023) have these rules; the figures are those of the group
# of the paper (shared PAPER.md): text of at least 200 characters, stop words, special characters, flagged words. The
# figure for word repetition is that of ROOTS for English.
ROOTS: Thresholds = {
    "characters_min": 200,
    "stop_word_ratio_min": 0.05,
    "special_character_ratio_max": 0.15,
    "flagged_word_ratio_max": 0.25,
    "word_repetition_ratio_max": 0.19,
}
# C4 (Raffel et al. 2020). Its least five sentences are those of the lines it keeps.
C4: Thresholds = {
    "lorem_ipsum_max": 0,
    "curly_brackets_max": 0,
    "c4_sentences_min": 5,
}
# FineWeb (Penedo et al. 2024). `terminal_lines` is ours: its share of lines that end a sentence, `ended_lines`, over
# lines of prose only (no headings, list items, table rows, code); it judges no text with fewer than three.
FINEWEB: Thresholds = {
    "terminal_lines_min": 0.12,
    "ended_lines_min": 0.12,
    "short_lines_max": 0.67,
    "newlines_per_word_max": 0.3,
}
# Rules that are off unless a language or a recipe gives them a limit. Technical text has curly brackets, headings,
# lists and tables: at the published figures each of them drops 3 to 48 % of the real manuals. Word repetition says
# what the duplicate 5-grams say. C4 removes lines with scripts and policies, not the text: no figure is published.
OFF = (
    "curly_brackets_max",
    "c4_sentences_min",
    "ended_lines_min",
    "short_lines_max",
    "word_repetition_ratio_max",
    "javascript_lines_max",
    "policy_lines_max",
    "c4_lines_min",
)
# Ours: flagged words less one for each word of a medical or legal text.
UNEXCUSED: Thresholds = {"unexcused_flagged_ratio_max": 0.05}
PUBLISHED: Thresholds = {**GOPHER, **GOPHER_REPETITION, **ROOTS, **FINEWEB, **C4}
TEXT_THRESHOLDS: Thresholds = {**PUBLISHED, **dict.fromkeys(OFF), **UNEXCUSED}

# Where every Han or kana character is a word, words are one character long, and 80 characters say as much as 200.
CHARACTER_WORDS: Thresholds = {"characters_min": 80, "mean_word_length_min": 1, "mean_word_length_max": 6}

# Codex (Chen et al. 2021) and StarCoder (Li et al. 2023): line lengths, letters and digits, generated files.
CODE_THRESHOLDS: Thresholds = {
    "longest_line_max": 1000,
    "mean_line_length_max": 100,
    "alphanumeric_ratio_min": 0.25,
    "generated_marker_max": 0,
}

# Ours, of documents of pairs, whose pairs were judged one by one (`pairs.py`). Half of such a text is in another
# language, its lines are labelled and its phrases come again: of the other rules few mean anything. On the real pairs
# each of these drops less than 1 %.
PAIR_THRESHOLDS: Thresholds = {
    **dict.fromkeys(TEXT_THRESHOLDS),
    "characters_min": 40,
    "symbol_word_ratio_max": 0.1,
    "letter_words_min": 0.6,
    "duplicate_lines_max": 0.3,
    "duplicate_5_grams_max": 0.6,
    "special_character_ratio_max": 0.25,
    "lorem_ipsum_max": 0,
}


def effective_thresholds(
    rules: Rules, settings: LanguageSettings | None, overrides: Mapping[str, float | None]
) -> Thresholds:
    """The thresholds that apply: published ones, the language's, then the recipe's overrides.

    Raises:
        RecipeError: a name is unknown.
    """
    published = {"text": TEXT_THRESHOLDS, "code": CODE_THRESHOLDS, "pairs": PAIR_THRESHOLDS}[rules]
    limits = dict(published)
    if rules == "text" and settings is not None:
        limits |= CHARACTER_WORDS if settings.words == "characters" else {}
        limits |= settings.thresholds
    limits |= overrides
    for name in limits:
        if name not in published:
            near = get_close_matches(name, published, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise RecipeError(f"threshold {name!r} is unknown, expected one of {', '.join(published)}{hint}")
    return limits


def judge_signals(
    signals: Mapping[str, np.ndarray], limits: Mapping[str, float | None], named: list[str], rows: int
) -> tuple[np.ndarray, list[str | None]]:
    """Which documents keep all limits (bool[rows]), and of the others the reason: the first that they fail.

    Args:
        signals: float32[rows] each, by name; a limit is named `<signal>_min` or `<signal>_max`.
        named: the reason for each of the limits.
    """
    first = np.full(rows, -1)
    for number, (name, limit) in enumerate(limits.items()):
        if limit is None:
            continue
        signal, _, side = name.rpartition("_")
        failed = signals[signal] < limit if side == "min" else signals[signal] > limit
        first[failed & (first < 0)] = number
    return first < 0, [None if number < 0 else named[number] for number in first.tolist()]


# datatrove's parameter -> our threshold. FineWeb-2's files have those from `dup_line_frac` to `max_avg_word_length`.
_OF_DATATROVE = {
    "dup_line_frac": "duplicate_lines_max",
    "dup_line_char_frac": "duplicate_line_characters_max",
    "dup_para_frac": "duplicate_paragraphs_max",
    "dup_para_char_frac": "duplicate_paragraph_characters_max",
    "char_duplicates_ratio": "duplicate_line_characters_max",
    "line_punct_thr": "ended_lines_min",
    "short_line_thr": "short_lines_max",
    "new_line_ratio": "newlines_per_word_max",
    "max_non_alpha_words_ratio": "letter_words_min",
    "non_alpha_words_ratio": "letter_words_min",
    "min_avg_word_length": "mean_word_length_min",
    "max_avg_word_length": "mean_word_length_max",
    "min_doc_words": "word_count_min",
    "max_doc_words": "word_count_max",
    "max_symbol_word_ratio": "symbol_word_ratio_max",
    "max_bullet_lines_ratio": "bullet_lines_max",
    "max_ellipsis_lines_ratio": "ellipsis_lines_max",
    "min_stop_words": "distinct_stop_words_min",
}
_LISTS_OF_DATATROVE = {"top_n_grams": "top_{}_gram_max", "dup_n_grams": "duplicate_{}_grams_max"}
_STOP_WORDS = ("stopwords", "stop_words")
_ELSEWHERE = ("language_score",)  # the language pass decides on it


def read_fineweb2(path: str | Path) -> tuple[Thresholds, list[str]]:
    """A configuration of FineWeb-2 (`configs/<language>_<script>.yml`) as our thresholds and its stop words.

    Its figures were found with other words than ours: in languages without spaces a segmenter's. As in datatrove a
    limit of 0 or null switches a rule off.

    Raises:
        RecipeError: the file is no such configuration; names the key.
    """
    try:
        config = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path} cannot be read as YAML: {error}") from None
    if not isinstance(config, dict):
        raise RecipeError(f"{path} is no configuration of FineWeb-2: expected keys such as dup_line_frac at the top")
    limits: Thresholds = {}
    stop_words: list[str] = []
    for key, value in config.items():
        if key in _STOP_WORDS:
            stop_words = [str(word) for word in value or ()]
        elif key not in _ELSEWHERE:
            limits |= _thresholds_of(path, key, value)
    return limits, stop_words


def _thresholds_of(path: str | Path, key: str, value: Any) -> Thresholds:
    if key not in _OF_DATATROVE and key not in _LISTS_OF_DATATROVE:
        near = get_close_matches(str(key), [*_OF_DATATROVE, *_LISTS_OF_DATATROVE, *_STOP_WORDS], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise RecipeError(f"{path}: {key!r} is no key of FineWeb-2's configurations{hint}")
    try:
        if key in _OF_DATATROVE:
            named = {_OF_DATATROVE[key]: value}
        else:
            named = {_LISTS_OF_DATATROVE[key].format(int(n)): limit for n, limit in value or ()}
        limits: Thresholds = {name: float(limit) if limit else None for name, limit in named.items()}
    except (TypeError, ValueError):
        shape = "a number" if key in _OF_DATATROVE else "pairs of length and limit"
        raise RecipeError(f"{path}: {key} is {value!r}, expected {shape}") from None
    for name in limits:
        if name not in TEXT_THRESHOLDS:
            raise RecipeError(f"{path}: {key} names an n-gram length without a rule ({name}); top: 2-4, dup: 5-10")
    return limits
