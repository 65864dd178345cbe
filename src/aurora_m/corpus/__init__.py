"""Raw documents in, clean documents out. What other rooms may use is named here; heavy modules load on first use."""

from importlib import import_module
from typing import TYPE_CHECKING

from .config import CurateConfig, DomainConfig, HeldoutConfig, NearDuplicateConfig, SourceConfig

if TYPE_CHECKING:
    from .curate import curate
    from .documents import DOCUMENT_SCHEMA
    from .language import LanguageSettings, available_languages, load_language
    from .sources import list_files

_MODULE_OF = {
    "DOCUMENT_SCHEMA": "documents",
    "LanguageSettings": "language",
    "available_languages": "language",
    "curate": "curate",
    "list_files": "sources",
    "load_language": "language",
}

__all__ = [
    "DOCUMENT_SCHEMA",
    "CurateConfig",
    "DomainConfig",
    "HeldoutConfig",
    "LanguageSettings",
    "NearDuplicateConfig",
    "SourceConfig",
    "available_languages",
    "curate",
    "list_files",
    "load_language",
]


def __getattr__(name: str):
    if name in _MODULE_OF:
        # `curate` is both a module and its function: the function is what is handed out.
        value = getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
