"""Raw documents in, clean documents out. What other rooms may use is named here; heavy modules load on first use."""

from typing import TYPE_CHECKING

from ..workspace import lazy_exports
from .config import (
    BoilerplateConfig,
    ClassifierConfig,
    CurateConfig,
    DecontaminateConfig,
    DomainConfig,
    EvaluationSetConfig,
    HeldoutConfig,
    LicenseConfig,
    NearDuplicateConfig,
    SourceConfig,
    UrlConfig,
)

if TYPE_CHECKING:
    from .classifier_training import describe_classifier, train_classifier
    from .curation import curate
    from .document_files import read_documents
    from .documents import DOCUMENT_SCHEMA
    from .earlier import fingerprint_index
    from .engine import ordered_threads
    from .evaluation_sets import fingerprint_evaluation_set
    from .fasttext_training import FastTextSettings
    from .histograms import LINEAR_BINS, bin_edges, from_description
    from .language_settings import LanguageSettings, available_languages, load_language
    from .normal_forms import is_nfc
    from .segments import segment, text_buffers
    from .sources import fingerprint_source
    from .stop_words import StopWords, learn_stop_words
    from .thresholds import read_fineweb2
    from .urls import fingerprint_hosts


__all__ = [
    "DOCUMENT_SCHEMA",
    "LINEAR_BINS",
    "BoilerplateConfig",
    "ClassifierConfig",
    "CurateConfig",
    "DecontaminateConfig",
    "DomainConfig",
    "EvaluationSetConfig",
    "FastTextSettings",
    "HeldoutConfig",
    "LanguageSettings",
    "LicenseConfig",
    "NearDuplicateConfig",
    "SourceConfig",
    "StopWords",
    "UrlConfig",
    "available_languages",
    "bin_edges",
    "curate",
    "describe_classifier",
    "fingerprint_evaluation_set",
    "fingerprint_hosts",
    "fingerprint_index",
    "fingerprint_source",
    "from_description",
    "is_nfc",
    "learn_stop_words",
    "load_language",
    "ordered_threads",
    "read_documents",
    "read_fineweb2",
    "segment",
    "text_buffers",
    "train_classifier",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "DOCUMENT_SCHEMA": "documents",
        "FastTextSettings": "fasttext_training",
        "LINEAR_BINS": "histograms",
        "LanguageSettings": "language_settings",
        "StopWords": "stop_words",
        "available_languages": "language_settings",
        "bin_edges": "histograms",
        "curate": "curation",
        "describe_classifier": "classifier_training",
        "fingerprint_evaluation_set": "evaluation_sets",
        "fingerprint_hosts": "urls",
        "fingerprint_index": "earlier",
        "fingerprint_source": "sources",
        "from_description": "histograms",
        "is_nfc": "normal_forms",
        "learn_stop_words": "stop_words",
        "load_language": "language_settings",
        "ordered_threads": "engine",
        "read_documents": "document_files",
        "read_fineweb2": "thresholds",
        "segment": "segments",
        "text_buffers": "segments",
        "train_classifier": "classifier_training",
    },
)
