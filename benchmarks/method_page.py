"""Draws the tables and plots of docs/method.md from the stored results of benchmarks/forgetting.py.

Tables stand in docs/method.md between `<!-- NAME -->` and `<!-- end -->`; plots are docs/method/*.svg.

    python benchmarks/method_page.py
"""

import json
import re
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from forgetting_strategies import NEW, OLD, STRATEGIES
from matplotlib import rc_context
from matplotlib.figure import Figure

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "forgetting"
PAGE, PLOTS = ROOT / "docs" / "method.md", ROOT / "docs" / "method"
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "method",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
}
Row = dict[str, Any]
Results = dict[str, list[Row]]  # by strategy, one row a seed


def read_results(scale: str) -> Results:
    found: Results = defaultdict(list)
    for path in sorted((RESULTS / scale).glob("*.json")):
        row = json.loads(path.read_text())
        found[row["strategy"]].append(row)
    return found


# ----------------------------------------------------------------------------------------------- figures of a run
def change(row: Row, domain: str) -> float:
    """Held-out bits per byte on the judging documents against the base."""
    return row["judged"][domain]["change"]


def course(row: Row, domain: str) -> list[float]:
    """Changes against the base on the way, by the ledger, which measures ten times."""
    bpb = row["ledger"]["bpb"][domain]
    base = row["ledger"].get("base", {}).get(domain) or bpb[0]
    return [one / base - 1 for one in bpb]


def worst(row: Row, domain: str) -> float | None:
    """The highest change on the way; None where it was not measured against the base."""
    if row["strategy"].startswith("extended") and "base" not in row["ledger"]:
        return None
    return max(course(row, domain))


def learned(row: Row, reference: Row) -> float:
    """Bits per byte of the new languages against the run of the same seed without replay, as a mean of the ratios."""
    ratios = [row["judged"][domain]["bpb"] / reference["judged"][domain]["bpb"] for domain in NEW]
    return statistics.mean(ratios) - 1


def replay(row: Row) -> float:
    """The share of the tokens that went to what the base knew."""
    given: dict[str, int] = defaultdict(int)
    for phase in row["phases"]:
        for domain, tokens in phase["tokens_by_domain"].items():
            given[domain] += tokens
    return sum(given[domain] for domain in OLD) / sum(given.values())


def reference(results: Results, row: Row) -> Row | None:
    return next((one for one in results.get("none", []) if one["seed"] == row["seed"]), None)


# ----------------------------------------------------------------------------------------------- tables
def spread(given: Iterable[float | None], write: Callable[[float], str]) -> str:
    """Mean and range over the seeds."""
    values = [value for value in given if value is not None]
    if not values:
        return "–"
    if len(values) == 1:
        return write(values[0])
    return f"{write(statistics.mean(values))} ({write(min(values))} to {write(max(values))})"


def percent(value: float) -> str:
    return f"{100 * value:+.1f}"


def strategies_table(results: Results) -> list[str]:
    lines = [
        "| strategy | seeds | en % | code % | en worst % | code worst % | "
        + " | ".join(NEW)
        + " | new against no replay % | replay % of tokens | CPU s |",
        "|---|" + "---|" * (9 + len(NEW)),
    ]
    for name in [name for name in STRATEGIES if name in results]:
        rows = results[name]
        cells = [f"{name}: {STRATEGIES[name].about}", str(len(rows))]
        cells += [spread((change(row, domain) for row in rows), percent) for domain in OLD]
        cells += [spread((worst(row, domain) for row in rows), percent) for domain in OLD]
        cells += [f"{statistics.mean(row['judged'][domain]['bpb'] for row in rows):.3f}" for domain in NEW]
        against = [learned(row, one) for row in rows if (one := reference(results, row))]
        cells.append(spread(against, percent) if against else "–")
        cells.append(f"{100 * statistics.mean(map(replay, rows)):.0f}")
        cells.append(f"{statistics.mean(row['cpu_seconds'] for row in rows):.0f}")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def guardrails_table(results: Results) -> list[str]:
    lines = [
        "| strategy | seed | en, at the end % | code, at the end % | given up at | replay % of tokens | en to code % "
        "| new against no replay % |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, rows in results.items():
        for row in rows:
            if "guardrails" not in row:
                continue
            ended = row["guardrails"][-1]["domains"]
            given_up = [
                f"{100 * one['progress']:.0f}% ({', '.join(one['infeasible'])})"
                for one in row["guardrails"]
                if one["infeasible"]
            ]
            cells = [name, str(row["seed"])]
            for domain in OLD:
                held = change(row, domain) <= ended[domain]["budget"]
                error = row["judged"][domain]["change_stderr"]
                cells.append(f"{percent(change(row, domain))} ± {100 * error:.1f}{'' if held else ' over'}")
            cells.append("; ".join(given_up) or "–")
            cells.append(f"{100 * replay(row):.0f}")
            tokens = row["phases"][-1]["tokens_by_domain"]
            total = sum(tokens.values())
            cells.append(" to ".join(f"{100 * tokens.get(domain, 0) / total:.0f}" for domain in OLD))
            one = reference(results, row)
            cells.append(percent(learned(row, one)) if one else "–")
            lines.append("| " + " | ".join(cells) + " |")
    return lines


# ----------------------------------------------------------------------------------------------- plots
def kind(name: str) -> tuple[str, str, str]:
    """Name in the legend, colour, marker."""
    if name.startswith("guard"):
        return "guardrails", "#c2571a", "D"
    if "merge" in name or name.startswith("trim"):
        return "merged", "#7a4fa3", "P"
    if name.startswith("low"):
        return "fixed, rate 3e-4", "#8a8a8a", "v"
    if name.startswith("code"):
        return "fixed, code-heavy", "#1f6f8b", "s"
    if name == "none" or name.startswith("even"):
        return "fixed, even", "#3f9a6b", "o"
    return "others", "#b8a23a", "^"


def draw_pareto(results: Results, path: Path, title: str) -> None:
    """Learning against forgetting: the worse of English and code across, the new languages up; both better if less."""
    figure = Figure(figsize=(7.6, 4.8), layout="constrained")
    axes = figure.add_subplot()
    seen = set()
    for name, rows in results.items():
        pairs = [
            (max(change(row, domain) for domain in OLD), learned(row, one))
            for row in rows
            if (one := reference(results, row)) and name not in ("base", "scratch", "no-rewarm")
        ]
        if not pairs:
            continue
        label, colour, marker = kind(name)
        axes.plot(*zip(*pairs, strict=True), marker, color=colour, markersize=3, alpha=0.4, linestyle="none")
        middle = [statistics.mean(one) for one in zip(*pairs, strict=True)]
        axes.plot(*middle, marker, color=colour, markersize=7, label=None if label in seen else label)
        axes.annotate(
            name.removeprefix("even-").removeprefix("guard-"),
            middle,
            xytext=(5, 4),
            textcoords="offset points",
            fontsize=7,
        )
        seen.add(label)
    for line in (0.01, 0.02, 0.03, 0.05):
        axes.axvline(line, color="#bbbbbb", linewidth=0.7, linestyle=(0, (3, 3)))
    axes.set(xlabel="forgotten: the worse of English and code, bits per byte against the base", title=title)
    axes.set_ylabel("new languages, bits per byte\nagainst no replay")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda share, _: f"{100 * share:+g}%")
    axes.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})


def draw_courses(results: Results, path: Path, names: list[str]) -> None:
    """Change of English and code over the continued tokens, a line a seed."""
    figure = Figure(figsize=(7.6, 3.2), layout="constrained")
    colours = dict(zip(names, ("#3f9a6b", "#1f6f8b", "#7a4fa3", "#c2571a", "#b8a23a", "#555555"), strict=False))
    for place, domain in enumerate(OLD, 1):
        axes = figure.add_subplot(1, 2, place)
        for name in names:
            for number, row in enumerate(results.get(name, [])):
                label = name if number == 0 else None
                axes.plot(
                    row["ledger"]["tokens"],
                    course(row, domain),
                    color=colours[name],
                    linewidth=1.2,
                    alpha=0.8,
                    label=label,
                )
        axes.axhline(0, color="#555555", linewidth=0.8)
        axes.set(title=domain, xlabel="tokens", ylabel="change against the base" if place == 1 else None)
        axes.xaxis.set_major_formatter(lambda tokens, _: f"{tokens / 1e6:g}M")
        axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:+g}%")
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Date": None})


def draw_replay(results: Results, path: Path) -> None:
    """What share of replay the guardrails gave over the phase."""
    names = [name for name in results if name.startswith("guard")]
    figure = Figure(figsize=(7.6, 3.0), layout="constrained")
    colours = dict(zip(names, ("#c2571a", "#1f6f8b", "#3f9a6b", "#7a4fa3", "#b8a23a", "#555555"), strict=False))
    for place, domain in enumerate(OLD, 1):
        axes = figure.add_subplot(1, 2, place)
        for name in names:
            for number, row in enumerate(results[name]):
                decisions = row["guardrails"]
                shares = [one["domains"][domain]["share_before"] for one in decisions]
                tokens = [0, *(one["tokens"] for one in decisions)]
                label = name if number == 0 else None
                axes.step(tokens, [shares[0], *shares], where="pre", color=colours[name], alpha=0.8, label=label)
        axes.set(title=domain, xlabel="tokens", ylabel="replay" if place == 1 else None, ylim=(0, None))
        axes.xaxis.set_major_formatter(lambda tokens, _: f"{tokens / 1e6:g}M")
        axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Date": None})


# ----------------------------------------------------------------------------------------------- the page
def fill(page: str, name: str, lines: list[str]) -> str:
    pattern = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end -->)", re.S)
    if not pattern.search(page):
        raise SystemExit(f"{PAGE} has no place for {name!r}: <!-- {name} --> and <!-- end -->")
    return pattern.sub(lambda match: match[1] + "\n".join(lines) + "\n" + match[2], page)


def main() -> int:
    PLOTS.mkdir(exist_ok=True)
    page = PAGE.read_text()
    with rc_context(STYLE):
        for scale in sorted(path.name for path in RESULTS.iterdir() if path.is_dir()):
            results = read_results(scale)
            page = fill(page, f"strategies {scale}", strategies_table(results))
            draw_pareto(results, PLOTS / f"pareto-{scale}.svg", f"Learning against forgetting, {scale} parameters")
            draw_courses(results, PLOTS / f"courses-{scale}.svg", ["none", "even-25", "code-40", "guard-3"])
            if any("guardrails" in row for rows in results.values() for row in rows):
                page = fill(page, f"guardrails {scale}", guardrails_table(results))
                draw_replay(results, PLOTS / f"replay-{scale}.svg")
    PAGE.write_text(page)
    print(f"{PAGE} and {PLOTS} are drawn")
    return 0


if __name__ == "__main__":
    sys.exit(main())
