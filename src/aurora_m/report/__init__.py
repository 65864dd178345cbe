"""Report: a run as one self-contained HTML page. It reads the run folder and nothing else."""

from typing import TYPE_CHECKING

from ..workspace import lazy_exports

if TYPE_CHECKING:
    from .figures import check_plot
    from .inspection import Wanted, inspect_curation
    from .ledger_words import describe_ledger, draw_ledger
    from .merging import describe_merge, draw_merge
    from .page import write_report
    from .standing import describe_run

__all__ = [
    "Wanted",
    "check_plot",
    "describe_ledger",
    "describe_merge",
    "describe_run",
    "draw_ledger",
    "draw_merge",
    "inspect_curation",
    "write_report",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "Wanted": "inspection",
        "describe_ledger": "ledger_words",
        "describe_run": "standing",
        "draw_ledger": "ledger_words",
        "check_plot": "figures",
        "describe_merge": "merging",
        "draw_merge": "merging",
        "inspect_curation": "inspection",
        "write_report": "page",
    },
)
