"""What a probe says, for people."""

from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text


def describe_probe(result: dict[str, Any]) -> RenderableType:
    """The trials, what each rate would take and cost over the whole phase, and what to write into the recipe."""
    return Group(_trials(result), _choices(result), Text(_advice(result)), Text(_NOTE))


_NOTE = (
    "Changes are of held-out bits per byte against the base. Ranges hold 8 of 10 outcomes of the fitted equation; the "
    "trials are a small part of the phase, so the rest of it is extrapolated. 'New' is against the planned rate "
    "without replay: above 0 is less learned."
)


def _trials(result: dict[str, Any]) -> Table:
    budget = list(result["budget"])
    table = _table(f"Trials: {result['part']:.0%} of phase {result['phase']} each")
    for name in ("replay", "peak rate", *(f"{domain}, end" for domain in budget), "worst", "new, bpb", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    for trial in result["trials"]:
        mixture, last = trial["phase"]["mixture"], max(row["tokens"] for row in trial["ledger"])
        ended = {row["domain"]: row for row in trial["ledger"] if row["tokens"] == last}
        new = [row["bpb"] for domain, row in ended.items() if domain in mixture and domain not in budget]
        worst = max(row["change"] for row in trial["ledger"] if row["domain"] in budget)
        table.add_row(
            f"{sum(mixture.get(domain, 0.0) for domain in budget):.0%}",
            f"{trial['phase']['lr']['peak']:.2g}",
            *(f"{ended[domain]['change']:+.1%}" for domain in budget),
            f"{worst:+.1%}",
            f"{sum(new) / len(new):.3f}",
            f"{trial['seconds']:.0f}",
        )
    return table


def _choices(result: dict[str, Any]) -> Table:
    budget = result["budget"]
    table = _table(f"The whole of phase {result['phase']}, as forecast")
    table.add_column("peak rate", justify="right")
    for domain, limit in budget.items():
        table.add_column(f"{domain}: replay", justify="right")
        table.add_column(f"end (budget {limit:.0%})", justify="right")
    table.add_column("new", justify="right")
    table.add_column("budgets")
    for choice in result["choices"]:
        cells = [f"{choice['peak']:.2g}"]
        for domain in budget:
            share = choice["shares"][domain]
            cells += ["none holds" if share is None else f"{share:.1%}", _range(choice["forecast"][domain])]
        held = "held" if choice["feasible"] else "not held under the ceiling"
        table.add_row(*cells, _range(choice["learned"]), held)
    return table


def _range(values: list[float] | tuple[float, float, float]) -> str:
    middle, low, high = values
    return f"{middle:+.1%} ({low:+.1%} to {high:+.1%})"


def _advice(result: dict[str, Any]) -> str:
    best = result["recommended"]
    if best is None:
        return (
            "No choice holds the budgets under the ceiling. Raise the budgets or the ceiling, or try lower rates "
            "(--rates)."
        )
    shares = ", ".join(f"{domain}: {share:.3f}" for domain, share in best["shares"].items())
    return f"Recommended for phase {result['phase']}: lr.peak {best['peak']:.3g}, and in the mixture {shares}."


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
