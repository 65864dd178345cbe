"""The forgetting ledger for the terminal: where every domain stands against the base, alone or beside another run."""

import math
from pathlib import Path

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from aurora_m.release import RunFacts, domain_groups, percent, read_facts
from aurora_m.workspace import AuroraError, atomic_path, format_count

from .figures import GREYS, check_plot, drawing, new_figure, token_axis
from .ledger import Track, read_tracks
from .standing import refuse_no_run

_BARS = "▁▂▃▄▅▆▇█"
_COURSE_WIDTH = 12  # characters
_COLOURS = ("#1f6f8b", "#c2571a")


def describe_ledger(
    run: Path, other: Path | None = None, phase: str | None = None, other_phase: str | None = None
) -> RenderableType:
    """Held-out bits per byte of every domain: base, now, best, worst on the way; with `other`, both runs side by side.

    Of a run with branches, the way to `phase` (default: to the final model); `other_phase` is the same of the other
    run, or without one of the same run.

    Raises:
        AuroraError: a folder is no run, or has no such phase, or no ledger yet.
    """
    facts = _facts(run, phase)
    if other is None and other_phase is None:
        return Group(_table(facts), *_branches(facts), _NOTE)
    second = _facts(other or run, other_phase)
    return Group(_comparison(facts, second), *_warnings(facts, second), _COMPARISON_NOTE)


def draw_ledger(
    run: Path, other: Path | None, path: Path, phase: str | None = None, other_phase: str | None = None
) -> None:
    """Change of every domain against its base over the tokens seen, one plot a domain, as .svg, .png or .pdf.

    Raises:
        RecipeError: `path` ends otherwise.
        AuroraError: as `describe_ledger`.
    """
    check_plot(path)
    runs = [_facts(run, phase)]
    if other is not None or other_phase is not None:
        runs.append(_facts(other or run, other_phase))
    tracks = [{track.domain: track for track in read_tracks(facts)} for facts in runs]
    domains = list(dict.fromkeys(domain for one in tracks for domain in one))
    columns = min(3, len(domains))
    from matplotlib import rc_context

    with drawing(), rc_context(GREYS):
        figure = new_figure(3.6 * columns, 2.5 * math.ceil(len(domains) / columns))
        for number, domain in enumerate(domains):
            axes = figure.add_subplot(math.ceil(len(domains) / columns), columns, number + 1)
            for facts, own, colour in zip(runs, tracks, _COLOURS, strict=False):
                if domain in own:
                    _draw(axes, own[domain], colour, _name(facts))
            axes.axhline(0, color="#555555", linewidth=0.8, linestyle=(0, (5, 3)))
            axes.set_title(domain)
            axes.set(xlabel="tokens seen", ylabel="change of bits per byte")
            axes.yaxis.set_major_formatter(lambda change, _: f"{change:+.1%}")
            token_axis(axes, [])
            if len(runs) > 1 and number == 0:
                axes.legend(frameon=False, fontsize=8)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:], dpi=150)


def _draw(axes, track: Track, colour: str, label: str) -> None:
    base = track.base_bpb or track.bpb[0]
    low, high = ([(b + sign * e) / base - 1 for b, e in zip(track.bpb, track.stderr, strict=True)] for sign in (-1, 1))
    axes.fill_between(track.tokens, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(track.tokens, [bpb / base - 1 for bpb in track.bpb], color=colour, label=label)


_NOTE = (
    "Bits per byte of held-out text: lower is better. Changes are against the base model; ± is the change's standard "
    "error over documents, each against itself. Worst: the highest on the way, and when. Course: all of the way, each "
    "domain on its own scale."
)
_COMPARISON_NOTE = (
    "Bits per byte of held-out text at the end of each run, and the change against its base. Apart: the second against "
    "the first; in brackets, by how many standard errors of the two (cautious: they score the same documents)."
)


def _empty_table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)


def _table(facts: RunFacts) -> Table:
    groups = domain_groups(facts)
    table = _empty_table(f"Forgetting ledger of {escape(_name(facts))}")
    for name in ("domain", "base", "now", "change", "±", "best", "worst", "course"):
        table.add_column(name, justify="left" if name in ("domain", "course") else "right", no_wrap=True)
    for group in ("known", "new language", "other"):
        members = [track for track in read_tracks(facts) if groups[track.domain] == group]
        for number, track in enumerate(members):
            table.add_row(escape(track.domain), *_cells(track), end_section=number == len(members) - 1)
    return table


def _cells(track: Track) -> list[str]:
    base = track.base_bpb
    worst = max(track.bpb)
    place = track.bpb.index(worst)
    since = _change(worst, base) + (f" at {format_count(track.tokens[place])}" if place else "")
    error = "–" if track.change_stderr is None else percent(track.change_stderr)
    best = _change(min(track.bpb), base)
    return [
        "–" if base is None else f"{base:.4f}",
        f"{track.bpb[-1]:.4f}",
        _change(track.bpb[-1], base),
        error,
        best,
        since,
        _course(track.bpb),
    ]


def _change(bpb: float, base: float | None) -> str:
    return f"{bpb:.4f}" if base is None else percent(bpb / base - 1, signed=True)


def _course(values: list[float]) -> str:
    """All values in at most 12 characters, each the last of its part, between the lowest and the highest."""
    low, high = min(values), max(values)
    count = min(_COURSE_WIDTH, len(values))
    shown = [values[(part + 1) * len(values) // count - 1] for part in range(count)]
    return "".join(_BARS[round((value - low) / ((high - low) or 1) * (len(_BARS) - 1))] for value in shown)


def _comparison(facts: RunFacts, second: RunFacts) -> Table:
    tracks, others = ({track.domain: track for track in read_tracks(one)} for one in (facts, second))
    names = [escape(_name(one)) for one in (facts, second)]
    if names[0] == names[1]:
        names = [escape(str(one.run)) for one in (facts, second)]
    table = _empty_table(f"Forgetting ledgers: {names[0]} and {names[1]}")
    table.add_column("domain")
    for column in (*(column for name in names for column in (name, "change")), "apart"):
        table.add_column(column, justify="right")
    for domain in dict.fromkeys([*tracks, *others]):
        first, last = tracks.get(domain), others.get(domain)
        cells = [cell for track in (first, last) for cell in _ending(track)]
        table.add_row(escape(domain), *cells, _apart(first, last))
    return table


def _ending(track: Track | None) -> list[str]:
    if track is None:
        return ["–", "–"]
    return [f"{track.bpb[-1]:.4f}", "–" if track.change is None else percent(track.change, signed=True)]


def _apart(first: Track | None, second: Track | None) -> str:
    if first is None or second is None:
        return "–"
    text = percent(second.bpb[-1] / first.bpb[-1] - 1, signed=True)
    error = math.hypot(first.stderr[-1], second.stderr[-1])
    return f"{text} ({abs(second.bpb[-1] - first.bpb[-1]) / error:.1f})" if error else text


def _warnings(facts: RunFacts, second: RunFacts) -> list[str]:
    """What makes two ledgers incomparable: other held-out text, or another number of tokens."""
    sizes = [{row["domain"]: row["bytes"] for row in one.ledger} for one in (facts, second)]
    other = [domain for domain in sizes[0] if domain in sizes[1] and sizes[0][domain] != sizes[1][domain]]
    lines = []
    if other:
        lines.append(f"[bold]warning:[/bold] held-out text differs in {escape(', '.join(other))}: not the same test")
    ends = [max(row["tokens"] for row in one.ledger) for one in (facts, second)]
    if ends[0] != ends[1]:
        lines.append(f"[bold]note:[/bold] trained on {format_count(ends[0])} and {format_count(ends[1])} tokens")
    return lines


def _name(facts: RunFacts) -> str:
    """The run's name, and of one with branches the phase."""
    name = facts.recipe.get("name", facts.run.name)
    return f"{name}, {list(facts.line)[-1]}" if facts.branches else name


def _branches(facts: RunFacts) -> list[str]:
    """A line on the branches that are not shown."""
    if not facts.branches:
        return []
    return [
        f"Up to phase {escape(list(facts.line)[-1])}; --phase shows another: {escape(', '.join(facts.branches))}.\n"
    ]


def _facts(run: Path, phase: str | None = None) -> RunFacts:
    refuse_no_run(run)
    facts = read_facts(run, phase)
    if not facts.ledger:
        raise AuroraError(f"{run} has no ledger yet; training writes it from its first step on")
    return facts
