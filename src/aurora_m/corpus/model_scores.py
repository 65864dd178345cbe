"""Scores of documents by models, and the limits laid on them: classifiers and language models in one pass.

Scores come first and are kept with the documents; limits are compared with them afterwards, so that others can be tried
on the columns without a model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from .classifiers import classifier_limits, classifier_scores, classifiers_of
from .config import ClassifierConfig, CurateConfig, DomainConfig, PerplexityConfig
from .perplexity import BUCKET, SCORE, buckets_of, perplexity_of, perplexity_scores
from .thresholds import judge_signals


@dataclass(frozen=True)
class Models:
    """The models that score the documents of a domain: what the recipe says of them. Files are loaded once."""

    classifiers: tuple[ClassifierConfig, ...] = ()
    perplexity: PerplexityConfig | None = None

    def __bool__(self) -> bool:
        return bool(self.classifiers or self.perplexity)

    @property
    def files(self) -> list[Path]:
        """The models' files."""
        return [Path(one.model) for one in (*self.classifiers, self.perplexity) if one is not None]

    @property
    def limits(self) -> dict[str, float]:
        """By column and side: `classifier.<name>_min`, `perplexity_max`."""
        sides = {f"{SCORE}_{side}": getattr(self.perplexity, side, None) for side in ("min", "max")}
        return classifier_limits(self.classifiers) | {name: limit for name, limit in sides.items() if limit is not None}

    def score(self, texts: pa.LargeStringArray) -> tuple[dict[str, np.ndarray], dict[str, pa.Array]]:
        """The scores of texts by column (float32[n]), and all columns to keep with the documents."""
        scores = classifier_scores(texts, self.classifiers)
        buckets = None
        if self.perplexity is not None:
            scores[SCORE] = perplexity_scores(texts, self.perplexity)
            buckets = buckets_of(scores[SCORE], self.perplexity)
        columns = {name: pa.array(values, pa.float32()) for name, values in scores.items()}
        return scores, columns if buckets is None else columns | {BUCKET: buckets}


def models_of(config: CurateConfig, name: str, domain: DomainConfig) -> Models:
    """The models of a domain, their files loaded and found right.

    Raises:
        DataError: a file is missing, damaged, or has no such label.
        RecipeError: a package is missing.
    """
    return Models(classifiers_of(config.classifiers, name, domain), perplexity_of(config.perplexity, domain))


def judge_scores(
    scores: Mapping[str, np.ndarray], limits: Mapping[str, float], rows: int
) -> tuple[np.ndarray, list[str | None]]:
    """Which texts keep within the limits (`classifier.<name>_min` and `_max`, see `classifier_limits`).

    Returns:
        keep (bool[rows]); reasons (None where kept), the first that failed: `classifier:<name>_min` or `_max`.
    """
    return judge_signals(scores, limits, [name.replace(".", ":", 1) for name in limits], rows)
