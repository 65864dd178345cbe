"""Section 5 of the report: the forgetting ledger, one plot per domain."""

from dataclasses import dataclass
from typing import Any

from aurora_m.release import BASE_PHASE, Group, RunFacts, domain_groups, percent
from aurora_m.workspace import format_count

from .figures import FAINT, GRID, INK, KNOWN, NEW, OTHER, drawing, new_figure, to_svg, token_axis

_COLOURS: dict[Group, str] = {"new language": NEW, "known": KNOWN, "other": OTHER}
_TITLES: dict[Group, str] = {
    "new language": "New languages: how much was learned",
    "known": "Known domains: how much was forgotten",
    "other": "Other domains",
}
_MAX_POINTS = 300


@dataclass(frozen=True)
class Track:
    """One domain's way through the ledger, from the base model on. Lists run over the ledger's measurements."""

    domain: str
    tokens: list[int]
    bpb: list[float]
    stderr: list[float]
    base_bpb: float | None
    change_stderr: float | None = None
    """Of the last change: over documents, each against itself."""

    @property
    def change(self) -> float | None:
        return self.bpb[-1] / self.base_bpb - 1 if self.base_bpb else None

    def relative_range(self) -> tuple[float, float]:
        """Lowest and highest value with its error band, as change against the base."""
        base = self.base_bpb or self.bpb[0]
        low = min(b - e for b, e in zip(self.bpb, self.stderr, strict=True))
        high = max(b + e for b, e in zip(self.bpb, self.stderr, strict=True))
        return low / base - 1, high / base - 1


def ledger_section(facts: RunFacts, starts: list[tuple[str, int]]) -> dict[str, Any] | None:
    """Small multiples by group, all of a group on one relative scale, and the ledger as a table."""
    tracks = read_tracks(facts)
    if not tracks:
        return None
    groups = domain_groups(facts)
    blocks = []
    with drawing():
        for group, title in _TITLES.items():
            members = [track for track in tracks if groups[track.domain] == group]
            if members:
                pairs = len(members) in (1, 2, 4)  # two wide plots a row leave no gap; else three
                size = (5.0, 2.5) if pairs else (3.5, 2.35)
                panels = [_panel(track, group, _scale(members), starts, n, size) for n, track in enumerate(members)]
                blocks.append({"group": group, "title": title, "panels": panels, "pairs": pairs})
    return {"blocks": blocks, "tracks": tracks, "table": _table(tracks, groups)}


def read_tracks(facts: RunFacts) -> list[Track]:
    """Each domain's measurements since the base model was there; while the base itself is training, all of them."""
    rows = facts.ledger
    base_end = max((row["tokens"] for row in rows if row["phase"] == BASE_PHASE), default=0)
    has_reference = any(row.get("base_bpb") is not None for row in rows)
    tracks = []
    for domain in facts.domains:
        # one value for each token count: the end of a phase and the start of the next measure the same model
        own = {r["tokens"]: r for r in rows if r["domain"] == domain and (r["tokens"] >= base_end or not has_reference)}
        measured = [row for row in own.values() if row.get("bpb") is not None]
        if measured:
            kept = measured[:: max(1, len(measured) // _MAX_POINTS)]
            kept = kept if kept[-1] is measured[-1] else [*kept, measured[-1]]
            base = next((row["base_bpb"] for row in measured if row.get("base_bpb") is not None), None)
            errors = [row.get("stderr") or 0.0 for row in kept]
            tokens, bpb = [r["tokens"] for r in kept], [r["bpb"] for r in kept]
            tracks.append(Track(domain, tokens, bpb, errors, base, kept[-1].get("change_stderr")))
    return tracks


def _scale(tracks: list[Track]) -> tuple[float, float]:
    """The range of change that holds all tracks, so that a steep line means the same in every panel."""
    ranges = [track.relative_range() for track in tracks]
    low, high = min(0.0, *(r[0] for r in ranges)), max(0.0, *(r[1] for r in ranges))
    margin = max(0.08 * (high - low), 0.005)
    return low - margin, high + margin


def _panel(
    track: Track,
    group: Group,
    scale: tuple[float, float],
    starts: list[tuple[str, int]],
    number: int,
    size: tuple[float, float],
) -> dict[str, Any]:
    figure = new_figure(*size)
    axes = figure.add_subplot()
    base = track.base_bpb or track.bpb[0]
    colour = _COLOURS[group]
    low, high = ([b + sign * e for b, e in zip(track.bpb, track.stderr, strict=True)] for sign in (-1, 1))
    axes.fill_between(track.tokens, low, high, color=colour, alpha=0.22, linewidth=0)
    if track.base_bpb:
        axes.axhline(base, color=INK, linewidth=1.0, linestyle=(0, (5, 3)))
    axes.plot(track.tokens, track.bpb, color=colour, linewidth=1.8)
    axes.plot(track.tokens[-1], track.bpb[-1], "o", color=colour, markersize=4.5)
    axes.set(ylim=(base * (1 + scale[0]), base * (1 + scale[1])), xlabel="tokens seen", ylabel="bits per byte")
    axes.margins(x=0.03)
    if track.base_bpb:
        _change_axis(axes, base)
    token_axis(axes, [start for start in starts if start[0] != BASE_PHASE or not track.base_bpb])
    title = f"{track.domain}: bits per byte over training, {percent(track.change, signed=True)}"
    return {"track": track, "svg": to_svg(figure, f"ledger-{group.replace(' ', '-')}-{number}", title)}


def _change_axis(axes, base: float) -> None:
    """The same scale on the right, as change against the base."""
    right = axes.secondary_yaxis("right", functions=(lambda bpb: bpb / base - 1, lambda change: (change + 1) * base))
    right.yaxis.set_major_formatter(lambda change, _: _tick(change))
    right.tick_params(colors=GRID, labelcolor=FAINT)
    right.spines["right"].set_color(GRID)
    axes.grid(axis="x", visible=False)


def _tick(change: float) -> str:
    text = f"{abs(change):.0%}"
    return text if text == "0%" else ("−" if change < 0 else "+") + text


def _table(tracks: list[Track], groups: dict[str, Group]) -> list[dict[str, Any]]:
    return [
        {
            "domain": track.domain,
            "group": groups[track.domain],
            "base": track.base_bpb,
            "best": min(track.bpb),
            "worst": max(track.bpb),
            "worst_tokens": format_count(track.tokens[track.bpb.index(max(track.bpb))]),
            "last": track.bpb[-1],
            "stderr": track.stderr[-1],
            "change": track.change,
        }
        for track in tracks
    ]
