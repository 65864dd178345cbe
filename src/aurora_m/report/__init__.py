"""Report: a run as one self-contained HTML page. It reads the run folder and nothing else."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .page import write_report
    from .standing import describe_run

__all__ = ["describe_run", "write_report"]

_MODULE_OF = {"describe_run": "standing", "write_report": "page"}


def __getattr__(name: str) -> Any:
    """Loads what needs matplotlib only when it is asked for (PEP 562)."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
