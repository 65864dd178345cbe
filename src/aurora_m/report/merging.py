"""A merge: learning against forgetting of every candidate, as a plot, in the page and in the terminal."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from aurora_m.release import RunFacts, percent, read_facts
from aurora_m.workspace import AuroraError, atomic_path

from .figures import AFTER, BEFORE, GREYS, INK, KNOWN, check_plot, drawing, new_figure, to_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# line of base shares, means of checkpoints, budget, ring around the choice
_PAGE_COLOURS = (AFTER, BEFORE, KNOWN, INK)
_FILE_COLOURS = ("#1f6f8b", "#c2571a", "#5a8f3c", "#222222")
_TITLE = "Learning against forgetting of models between base and final"


def merging_section(facts: RunFacts) -> dict[str, Any] | None:
    """The plot and the table of the page, where the run was merged."""
    merge = facts.merge
    if merge is None:
        return None
    with drawing():
        svg = to_svg(_pareto(merge, _PAGE_COLOURS, (7.4, 3.9)), "merge", _TITLE)
    guarded = list(merge["budget"])
    rows = [
        {
            "name": row["name"],
            "chosen": row["name"] == merge["chosen"],
            "inside": row["inside"],
            "learning": row["learning"],
            "learning_stderr": row["learning_stderr"],
            "guarded": [row["domains"][domain] for domain in guarded],
        }
        for row in merge["candidates"]
    ]
    return {"svg": svg, "rows": rows, "budget": merge["budget"], **{key: merge[key] for key in _SHOWN}}


_SHOWN = ("chosen", "reason", "learned", "base", "final", "inside")


def describe_merge(run: Path) -> RenderableType:
    """The candidates of a run's merge, which was chosen, and why.

    Raises:
        AuroraError: the folder is no run, or was not merged.
    """
    merge = _merge_of(run)
    table = Table(title="Candidates", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("", no_wrap=True)
    table.add_column("candidate")
    table.add_column("learned", justify="right", no_wrap=True)
    for domain, allowed in merge["budget"].items():
        table.add_column(f"{escape(domain)} of {percent(allowed)}", justify="right", no_wrap=True)
    table.add_column("inside")
    for row in merge["candidates"]:
        cells = [(row["learning"], row["learning_stderr"])]
        cells += [(row["domains"][one]["change"], row["domains"][one]["stderr"]) for one in merge["budget"]]
        table.add_row(
            "→" if row["name"] == merge["chosen"] else "",
            escape(row["name"]),
            *(f"{change:+.2%} ± {error:.2%}" for change, error in cells),
            "yes" if row["inside"] else "no",
        )
    note = (
        f"Learned: mean change of bits per byte of {', '.join(merge['learned'])} against the base; then the change of "
        "each guarded domain, of what it may be. Inside: every change, one standard error added, is within budget."
    )
    return Group(table, f"[bold]Kept: {escape(merge['chosen'])}[/bold]: {escape(merge['reason'])}", escape(note))


def draw_merge(run: Path, path: Path) -> None:
    """The plot as .svg, .png or .pdf.

    Raises:
        RecipeError: `path` ends otherwise.
        AuroraError: as `describe_merge`.
    """
    check_plot(path)
    merge = _merge_of(run)
    from matplotlib import rc_context

    with drawing(), rc_context(GREYS):
        figure = _pareto(merge, _FILE_COLOURS, (7.4, 4.4))
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:], dpi=150)


def _pareto(merge: dict[str, Any], colours: tuple[str, ...], size: tuple[float, float]) -> "Figure":
    """Every candidate by what it lost of the guarded domains and what it learned; down and left is better."""
    line_colour, mean_colour, budget_colour, ring_colour = colours
    figure = new_figure(*size)
    axes = figure.add_subplot()
    limit, label = _limit(merge)
    for row in merge["candidates"]:
        is_mean = row["average_last"] > 1 and not row["base_share"]
        _draw_point(axes, row, merge, ("s", mean_colour) if is_mean else ("o", line_colour))
        if row["name"] == merge["chosen"]:
            ring = {"markersize": 12, "markerfacecolor": "none", "markeredgewidth": 1.4}
            axes.plot(*_place(row, merge), "o", markeredgecolor=ring_colour, **ring)
    line = sorted((row for row in merge["candidates"] if _is_on_line(row, merge)), key=lambda row: row["base_share"])
    places = [_place(row, merge) for row in line]
    axes.plot([x for x, _ in places], [y for _, y in places], color=line_colour, linewidth=1.0, alpha=0.6)
    left, right = axes.get_xlim()
    right = max(right, limit + 0.05 * (right - left))
    left = min(left, limit - 0.1 * (right - left))
    axes.axvspan(left, limit, color=budget_colour, alpha=0.12, linewidth=0)
    axes.axvline(limit, color=budget_colour, linewidth=1.0, linestyle=(0, (5, 3)))
    axes.set(xlim=(left, right), xlabel=label, ylabel=f"mean change of {', '.join(merge['learned'])}")
    axes.margins(y=0.12)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda change, _: f"{change:+.1%}")
    return figure


def _draw_point(axes, row: dict[str, Any], merge: dict[str, Any], look: tuple[str, str]) -> None:
    x, y = _place(row, merge)
    errors = {"xerr": row["domains"][row["worst"]]["stderr"], "yerr": row["learning_stderr"]}
    axes.errorbar(x, y, **errors, fmt=look[0], color=look[1], markersize=5, elinewidth=0.8, alpha=0.9)
    text = row["name"].removeprefix("base share ")
    axes.annotate(text, (x, y), xytext=(6, 5), textcoords="offset points", fontsize=8)


def _limit(merge: dict[str, Any]) -> tuple[float, str]:
    """Where the budget ends on the x axis, and what that axis shows: with several budgets, what is beyond them."""
    allowed = set(merge["budget"].values())
    names = ", ".join(merge["budget"])
    if len(allowed) == 1:
        return allowed.pop(), f"worst change of {names} (budget shaded)"
    return 0.0, f"worst change of {names} beyond its budget (inside shaded)"


def _place(row: dict[str, Any], merge: dict[str, Any]) -> tuple[float, float]:
    worst = row["worst"]
    change = row["domains"][worst]["change"]
    several = len(set(merge["budget"].values())) > 1
    return change - (merge["budget"][worst] if several else 0.0), row["learning"]


def _is_on_line(row: dict[str, Any], merge: dict[str, Any]) -> bool:
    """Whether a candidate lies between the base and the model that shares of the base were tried on."""
    shared = [one["average_last"] for one in merge["candidates"] if one["base_share"]]
    return not shared or row["average_last"] == shared[0]


def _merge_of(run: Path) -> dict[str, Any]:
    merge = read_facts(run).merge
    if merge is None:
        raise AuroraError(f"{run} has not been merged; `aurora-m merge {run}` does it, after training")
    return merge
