"""One batch of one domain through the passes that look at a document by itself. Runs in many threads at once."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from .boilerplate import Boilerplate, learn_boilerplate
from .code_language import code_languages
from .config import CurateConfig, DomainConfig
from .decontaminate import EvaluationIndex, Overlap
from .dedup import Signatures, content_hashes, minhash
from .documents import byte_lengths, text_bytes, with_column
from .engine import OrderedMap
from .funnel import DroppedSample, Funnel
from .identifier import load_identifier
from .language_check import check_language
from .language_settings import LanguageSettings
from .licenses import license_pass
from .model_scores import Models
from .normalise import normalise_pass
from .privacy import redact_pass
from .quality import quality_signals
from .repeatable import Repeatable
from .segments import Segments, segment
from .sources import Source
from .urls import check_urls, url_pass


@dataclass
class Screened:
    """What became of a batch: the documents left, all scored and none judged yet, and what duplicates are found by."""

    documents: pa.RecordBatch
    funnel: Funnel
    dropped: DroppedSample
    overlaps: list[Overlap] = field(default_factory=list)
    """With evaluation sets, by the rows of the documents."""
    signatures: Signatures | None = None
    repeatable: Repeatable | None = None


class Screen:
    """The passes of one domain, to be applied to its batches."""

    def __init__(
        self,
        domain: DomainConfig,
        config: CurateConfig,
        settings: LanguageSettings | None,
        seed: int,
        evaluation: EvaluationIndex | None = None,
        models: Models | None = None,
    ) -> None:
        self.domain, self.config, self.settings, self.seed = domain, config, settings, seed
        self.language_model = Path(config.language_model) if config.language_model else None
        self.checks_language = settings is not None and config.language_check != "off" and domain.rules == "text"
        check_urls(config.urls)
        if self.checks_language:
            # Here and not in the threads, of which each would load it; and a wrong file is named before any work.
            load_identifier(self.language_model)
        self.evaluation = evaluation if domain.decontaminate else None
        self.models = models or Models()
        self.boilerplate: Boilerplate | None = None

    def learn(self, sources: Sequence[Source], in_order: OrderedMap) -> None:
        """A first look at the sources, for what can only be judged from many documents."""
        if self.domain.rules == "text" and self.config.boilerplate.max_share < 1:
            self.boilerplate = learn_boilerplate(sources, self.config.boilerplate, in_order)
            self.boilerplate.show_lines_as(self.redacted)

    def redacted(self, texts: pa.LargeStringArray) -> pa.LargeStringArray:
        """Texts as people may be shown them: without personal data, where the domain's own are kept without it."""
        return self._redacted(texts)[0]

    def _redacted(self, texts: pa.LargeStringArray) -> tuple[pa.LargeStringArray, dict[str, int]]:
        if not (self.domain.redact and self.config.redact):
            return texts, {}
        return redact_pass(texts, self.settings, self.config.redact, self.config.redact_style, self.seed)

    def __call__(self, documents: pa.RecordBatch) -> Screened:
        """Reads, normalises, redacts and scores a batch.

        What scores decide is decided afterwards (`judging.py`): thresholds change nothing here.
        """
        batch = Screened(documents, Funnel(), DroppedSample(self.config.dropped_sample))
        batch.funnel.count_pass("read", documents, np.ones(documents.num_rows, bool))
        batch.funnel.count_sources(documents, "in")
        self._check_licenses(batch)
        self._check_urls(batch)
        self._normalise(batch)
        self._remove_boilerplate(batch)
        self._check_language(batch)
        self._name_code(batch)
        # Before the text is segmented: all that follows reads the words and lines of what is kept.
        self._redact(batch)
        started = time.perf_counter()
        segments = segment(_texts(batch.documents))
        batch.funnel.passes["quality"].seconds += time.perf_counter() - started
        self._score_quality(batch, segments)
        self._score_by_models(batch)
        self._find_evaluation_texts(batch, segments)
        self._sign(batch, segments)
        self._find_repeatable(batch, segments)
        return batch

    def quarantine(self, documents: pa.RecordBatch, reason: str) -> Screened:
        """Drops a batch that a pass broke at. It is counted, but nothing else touches it: that might break, too."""
        batch = Screened(documents.slice(0, 0), Funnel(), DroppedSample(0))
        batch.funnel.count_pass("read", documents, np.zeros(documents.num_rows, bool), [reason] * documents.num_rows)
        batch.funnel.count_sources(documents, "in")
        return batch

    def _check_licenses(self, batch: Screened) -> None:
        if self.config.licenses.is_on:
            started = time.perf_counter()
            keep, reasons = license_pass(batch.documents.column("license"), self.config.licenses)
            _drop(batch, "license", keep, reasons, started)

    def _check_urls(self, batch: Screened) -> None:
        if self.config.urls.is_on:
            started = time.perf_counter()
            keep, reasons = url_pass(batch.documents.column("url"), self.config.urls)
            _drop(batch, "url", keep, reasons, started)

    def _normalise(self, batch: Screened) -> None:
        started = time.perf_counter()
        bytes_in = text_bytes(batch.documents)
        texts, keep, reasons = normalise_pass(_texts(batch.documents))
        batch.documents = with_column(batch.documents, "text", texts)
        _drop(batch, "normalise", keep, reasons, started)
        # The texts were counted as they became; what came in is what they were.
        batch.funnel.passes["normalise"].bytes_in = bytes_in

    def _remove_boilerplate(self, batch: Screened) -> None:
        if not self.boilerplate:
            return
        started = time.perf_counter()
        bytes_in = text_bytes(batch.documents)
        batch.documents, batch.funnel.boilerplate = self.boilerplate.remove(batch.documents)
        keep = byte_lengths(_texts(batch.documents)) > 0
        _drop(batch, "boilerplate", keep, ["boilerplate:nothing_else"] * len(keep), started)
        batch.funnel.passes["boilerplate"].bytes_in = bytes_in

    def _check_language(self, batch: Screened) -> None:
        started = time.perf_counter()
        n, bytes_in = batch.documents.num_rows, text_bytes(batch.documents)
        if self.settings is not None and self.checks_language:
            mode = "paragraph" if self.config.language_check == "paragraph" else "document"
            checked = check_language(_texts(batch.documents), self.settings, mode, self.language_model)
            keep, reasons, score_column = checked.keep, checked.reasons, pa.array(checked.scores, pa.float32())
            batch.documents = with_column(batch.documents, "text", checked.texts)
            batch.funnel.languages[self.settings.code] = checked.detected(self.settings.code)
            batch.funnel.foreign_paragraphs = checked.foreign
        else:
            keep, reasons, score_column = np.ones(n, bool), [None] * n, pa.nulls(n, pa.float32())
        batch.documents = with_column(batch.documents, "lang_score", score_column)
        _drop(batch, "language", keep, reasons, started)
        batch.funnel.passes["language"].bytes_in = bytes_in

    def _name_code(self, batch: Screened) -> None:
        """The programming languages of code, in the column `code_language`; those not wanted are dropped."""
        if self.domain.rules != "code":
            return
        started = time.perf_counter()
        names = code_languages(batch.documents)
        batch.documents = with_column(batch.documents, "code_language", pa.array(names, pa.string()))
        batch.funnel.code_languages.update(name or "unknown" for name in names)
        wanted = self.domain.code_languages
        keep = np.array([wanted is None or name in wanted for name in names], bool)
        reasons = [f"code_language:{name or 'unknown'}" for name in names]
        _drop(batch, "code_language", keep, reasons, started)

    def _score_quality(self, batch: Screened, segments: Segments) -> None:
        if self.domain.rules == "none":
            return
        started = time.perf_counter()
        signals = quality_signals(_texts(batch.documents), segments, self.domain.rules, self.settings)
        batch.funnel.scores.count(signals)
        for name, values in signals.items():
            batch.documents = with_column(batch.documents, f"quality.{name}", pa.array(values, pa.float32()))
        batch.funnel.passes["quality"].seconds += time.perf_counter() - started

    def _score_by_models(self, batch: Screened) -> None:
        """Scores of classifiers and language models."""
        if not self.models:
            return
        started = time.perf_counter()
        scores, columns = self.models.score(_texts(batch.documents))
        batch.funnel.scores.count(scores)
        for name, values in columns.items():
            batch.documents = with_column(batch.documents, name, values)
        batch.funnel.passes["model_scores"].seconds += time.perf_counter() - started

    def _find_evaluation_texts(self, batch: Screened, segments: Segments) -> None:
        if self.evaluation is None:
            return
        started = time.perf_counter()
        batch.overlaps = self.evaluation.find(_texts(batch.documents), segments)
        batch.funnel.passes["decontaminate"].seconds += time.perf_counter() - started

    def _redact(self, batch: Screened) -> None:
        started = time.perf_counter()
        before = batch.documents
        texts, counts = self._redacted(_texts(before))
        batch.documents = with_column(before, "text", texts)
        batch.funnel.redactions.update(counts)
        batch.funnel.count_change("redact", before, batch.documents, time.perf_counter() - started)

    def _sign(self, batch: Screened, segments: Segments) -> None:
        """Hashes and signatures."""
        started = time.perf_counter()
        texts = _texts(batch.documents)
        batch.documents = with_column(batch.documents, "content_hash", pa.array(content_hashes(texts), pa.uint64()))
        hashed = time.perf_counter()
        batch.funnel.passes["exact_duplicates"].seconds += hashed - started
        if self.domain.near_duplicates and self.domain.rules != "none":
            batch.signatures = minhash(segments, self.config.near_duplicates, self.seed, texts=texts)
            batch.funnel.passes["near_duplicates"].seconds += time.perf_counter() - hashed

    def _find_repeatable(self, batch: Screened, segments: Segments) -> None:
        """What repeated text is found by."""
        config = self.config.repeated_text
        if self.domain.repeated_text and self.domain.rules == "text" and config.is_on:
            started = time.perf_counter()
            batch.repeatable = Repeatable.of(_texts(batch.documents), segments, config)
            batch.funnel.passes["repeated_text"].seconds += time.perf_counter() - started


def _texts(documents: pa.RecordBatch) -> pa.LargeStringArray:
    return documents.column("text")


def _drop(batch: Screened, pass_name: str, keep: np.ndarray, reasons: Sequence[str | None], started: float) -> None:
    """Counts what a pass, begun at `started`, made of a batch, and leaves what it kept."""
    batch.funnel.count_pass(pass_name, batch.documents, keep, reasons, time.perf_counter() - started)
    if keep.all():
        return
    gone = batch.documents.filter(pa.array(~keep))
    named = [reasons[row] or pass_name for row in np.flatnonzero(~keep).tolist()]
    batch.dropped.add(gone, pass_name, named, content_hashes(_texts(gone)))
    batch.documents = batch.documents.filter(pa.array(keep))
