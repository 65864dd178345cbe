"""Report: a run as one self-contained HTML page. It reads the run folder and nothing else."""

from typing import TYPE_CHECKING

from ..workspace import lazy_exports

if TYPE_CHECKING:
    from .inspection import Wanted, inspect_curation
    from .ledger_words import describe_ledger, draw_ledger
    from .page import write_report
    from .standing import describe_run

__all__ = ["Wanted", "describe_ledger", "describe_run", "draw_ledger", "inspect_curation", "write_report"]

__getattr__ = lazy_exports(
    __name__,
    {
        "Wanted": "inspection",
        "describe_ledger": "ledger_words",
        "describe_run": "standing",
        "draw_ledger": "ledger_words",
        "inspect_curation": "inspection",
        "write_report": "page",
    },
)
