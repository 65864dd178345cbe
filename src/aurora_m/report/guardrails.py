"""The guardrails in section 5 of the report: how each guarded domain was expected to end, and what replay it got."""

import json
from pathlib import Path
from typing import Any

from aurora_m.release import is_on
from aurora_m.workspace import format_count

from .figures import AFTER, FAINT, INK, KNOWN, drawing, new_figure, to_svg, token_axis

_ROWS = 40
_VERDICTS = {
    "hold": "kept the shares",
    "raise": "more replay",
    "lower": "less replay",
    "infeasible": "gave the budget up",
}


def guardrails_section(
    run: Path, starts: list[tuple[str, int]], line: dict[str, float] | None = None
) -> dict[str, Any] | None:
    """A plot a domain and the decisions as a table; None where nothing was guarded. `line`: only these phases, up to
    so many tokens of the run."""
    rows = read_decisions(run / "train" / "guardrails.jsonl")
    rows = [row for row in rows if is_on(line or {}, row["phase"], row["tokens"])]
    if not rows:
        return None
    domains = list(dict.fromkeys(domain for row in rows for domain in row["domains"]))
    with drawing():
        panels = [
            {"domain": domain, "svg": _panel(domain, rows, starts, number), **_end(domain, rows)}
            for number, domain in enumerate(domains)
        ]
    table = [_told(row) for row in rows if row["verdict"] != "hold" or row["progress"] == 1]
    return {"panels": panels, "table": table[-_ROWS:], "left_out": max(0, len(table) - _ROWS), "domains": domains}


def read_decisions(path: Path) -> list[dict[str, Any]]:
    """The rows of guardrails.jsonl; none where there is no such file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def _panel(domain: str, rows: list[dict[str, Any]], starts: list[tuple[str, int]], number: int) -> str:
    """Above: change measured, forecast of the phase's end with its interval, budget. Below: the domain's share."""
    own = [row for row in rows if domain in row["domains"]]
    tokens = [row["tokens"] for row in own]
    looks = [row["domains"][domain] for row in own]
    figure = new_figure(5.0, 3.6)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2.2, 1])
    above.step(tokens, [look["budget"] for look in looks], where="pre", color=INK, linewidth=1.0, linestyle=(0, (5, 3)))
    above.axhline(0, color=FAINT, linewidth=0.8)
    forecasts = [look["forecast"] for look in looks]
    errors = [[abs(look[side] - look["forecast"]) for look in looks] for side in ("low", "high")]
    above.errorbar(tokens, forecasts, errors, fmt="s", color=AFTER, markersize=3, linewidth=0.9)
    above.plot(tokens, [look["change"] for look in looks], "o-", color=KNOWN, markersize=3.5)
    above.yaxis.set_major_formatter(lambda change, _: f"{change:+.0%}" if abs(change) > 0.0995 else f"{change:+.1%}")
    above.set_ylabel("change")
    above.margins(x=0.03)
    shares = [look["share_before"] for look in looks]  # each held up to its measurement
    below.step([_start(own[0], starts), *tokens], [shares[0], *shares], where="pre", color=KNOWN)
    below.set(xlabel="tokens seen", ylabel="replay", ylim=(0, None))
    below.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    token_axis(below, starts, named=False)
    title = f"{domain}: change against the base, forecast of the phase's end, budget and replay"
    return to_svg(figure, f"guardrails-{number}", title)


def _start(row: dict[str, Any], starts: list[tuple[str, int]]) -> int:
    """Where the phase of a decision began."""
    return next((start for name, start in starts if name == row["phase"]), row["tokens"])


def _end(domain: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How the domain stood at the last measurement, and whether that was inside its budget."""
    last = next(row["domains"][domain] for row in reversed(rows) if domain in row["domains"])
    return {"change": last["change"], "budget": last["budget"], "inside": last["change"] <= last["budget"]}


def _told(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "phase": row["phase"],
        "tokens": format_count(row["tokens"]),
        "done": "at the phase's end" if row["progress"] == 1 else _VERDICTS[row["verdict"]],
        "infeasible": row["infeasible"],
        "shares": [row["domains"][domain]["share"] for domain in row["domains"]],
        "rate_factor": row["rate_factor"],
        "why": row["why"],
    }
