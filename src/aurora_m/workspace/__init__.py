"""Ground floor: errors, config building blocks, atomic files, manifests, the run lock, progress, compiled loops."""

from typing import TYPE_CHECKING

from .cores import available_cores
from .errors import AuroraError, DataError, RecipeError
from .files import (
    atomic_folder,
    atomic_path,
    fingerprint,
    fingerprint_file,
    fingerprint_folder,
    lock_run,
    read_json,
    recover_folder,
    write_json,
    write_text,
)
from .lazy import lazy_exports
from .manifest import (
    Manifest,
    forget_manifest,
    installed_versions,
    load_manifest,
    peak_memory_bytes,
    record_stage,
    stage_fingerprint,
)
from .progress import Progress, Task
from .section import Count, Section, Share, format_count, parse_count, parse_share

if TYPE_CHECKING:
    from .compiled import kernel, relaxed_kernel

__all__ = [
    "AuroraError",
    "Count",
    "DataError",
    "Manifest",
    "Progress",
    "RecipeError",
    "Section",
    "Share",
    "Task",
    "atomic_folder",
    "atomic_path",
    "available_cores",
    "fingerprint",
    "fingerprint_file",
    "fingerprint_folder",
    "forget_manifest",
    "format_count",
    "installed_versions",
    "kernel",
    "lazy_exports",
    "load_manifest",
    "lock_run",
    "parse_count",
    "parse_share",
    "peak_memory_bytes",
    "read_json",
    "record_stage",
    "recover_folder",
    "relaxed_kernel",
    "stage_fingerprint",
    "write_json",
    "write_text",
]

# numba takes long to import
__getattr__ = lazy_exports(__name__, {"kernel": "compiled", "relaxed_kernel": "compiled"})
