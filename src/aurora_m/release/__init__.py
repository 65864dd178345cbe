"""Release: the finished model as a folder other people can load, read about and check."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .config import ReleaseConfig

if TYPE_CHECKING:
    from .build import ReleaseError, release
    from .checksums import verify_release

__all__ = ["ReleaseConfig", "ReleaseError", "release", "verify_release"]

_MODULE_OF = {"ReleaseError": "build", "release": "build", "verify_release": "checksums"}


def __getattr__(name: str) -> Any:
    """Loads what needs torch and transformers only when it is asked for (PEP 562)."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
