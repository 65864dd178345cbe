"""Release: the finished model as a folder other people can load, read about and check."""

from typing import TYPE_CHECKING

from ..workspace import lazy_exports
from .config import ReleaseConfig
from .errors import ReleaseError
from .facts import (
    BASE_PHASE,
    Change,
    Group,
    RunFacts,
    domain_groups,
    energy,
    final_changes,
    is_on,
    phases,
    phases_of_model,
    read_facts,
)
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
    "energy",
    "final_changes",
    "is_on",
    "licenses_of",
    "obligations",
    "percent",
    "phases",
    "phases_of_model",
    "plain",
    "read_facts",
    "release",
    "size",
    "verify_release",
    "without_secrets",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "release": "build",
        "verify_release": "checksums",
    },
)
