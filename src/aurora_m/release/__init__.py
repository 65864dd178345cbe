"""Release: the finished model as a folder other people can load, read about and check."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .config import ReleaseConfig
from .errors import ReleaseError
from .facts import BASE_PHASE, Change, Group, RunFacts, domain_groups, final_changes, phases, read_facts
from .licenses import licenses_of, obligations
from .wording import duration, percent, plain, size, without_secrets

if TYPE_CHECKING:
    from .build import release
    from .checksums import verify_release

__all__ = [
    "BASE_PHASE",
    "Change",
    "Group",
    "ReleaseConfig",
    "ReleaseError",
    "RunFacts",
    "domain_groups",
    "duration",
    "final_changes",
    "licenses_of",
    "obligations",
    "percent",
    "phases",
    "plain",
    "read_facts",
    "release",
    "size",
    "verify_release",
    "without_secrets",
]

_MODULE_OF = {"release": "build", "verify_release": "checksums"}


def __getattr__(name: str) -> Any:
    """Loads what needs torch and transformers only when it is asked for (PEP 562)."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
