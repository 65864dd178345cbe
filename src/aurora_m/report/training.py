"""Sections 3 and 4 of the report: the mixture over time, the losses, the learning rate."""

import itertools
from typing import Any

from aurora_m.release import RunFacts, duration, percent, phases, phases_of_model
from aurora_m.safety import TUNING_DOMAIN
from aurora_m.workspace import format_count

from .figures import AFTER, INK, PAPER, drawing, new_figure, series_hatch, series_style, to_svg, token_axis
from .metrics import Point, read_points, tokens_between

_WINDOWS = 90
_SIZE = (5.4, 3.0)  # inches

Boundaries = list[tuple[str, int]]


def boundaries(facts: RunFacts, points: list[Point]) -> Boundaries:
    """The phases and the token count each starts at: from train.json, else from what was logged so far."""
    if facts.train:
        return [(phase["name"], phase["start_tokens"]) for phase in phases_of_model(facts)]
    starts: dict[str, int] = {}
    last = 0
    for point in points:
        starts.setdefault(point.phase, last)
        last = point.tokens
    return list(starts.items())


def mixture_section(facts: RunFacts, points: list[Point]) -> dict[str, Any] | None:
    """The share of tokens every domain got over training, and what each phase gave it."""
    domains = [d for d in facts.domains if any(d in point.tokens_by_domain for point in points)]
    if not domains:
        return None
    numbers = {domain: facts.domains.index(domain) for domain in domains}
    with drawing():
        figure = new_figure(10.8, 3.2)
        _draw_mixture(figure.add_subplot(), _windows(points), numbers, boundaries(facts, points))
        svg = to_svg(figure, "mixture", "Share of training tokens by domain, over training")
    trained = phases(facts)
    return {
        "figure": svg,
        "domains": domains,
        "phases": trained,
        "settings": _settings(trained),
        "changes": mixture_changes(facts),
    }


def mixture_changes(facts: RunFacts) -> list[dict[str, Any]]:
    """Where the mixture changed within a phase: `phase`, `tokens` of the run, `why`, and which shares, in words."""
    changes = []
    for before, after in itertools.pairwise(facts.mixtures):
        if before["phase"] != after["phase"]:
            continue
        names = dict.fromkeys([*before["shares"], *after["shares"]])
        shares = [(name, before["shares"].get(name, 0.0), after["shares"].get(name, 0.0)) for name in names]
        words = [f"{name} {percent(old)} → {percent(new)}" for name, old, new in shares if old != new]
        changes.append({key: after[key] for key in ("phase", "tokens", "why")} | {"words": ", ".join(words)})
    return changes


def _windows(points: list[Point]) -> list[Point]:
    """Every n-th point and the last of each phase: the counters are cumulative, so none of the tokens is lost."""
    stride = max(1, len(points) // _WINDOWS)
    last_of_phase = [now.phase != after.phase for now, after in itertools.pairwise(points)] + [True]
    return [point for n, point in enumerate(points) if last_of_phase[n] or n % stride == stride - 1]


def _draw_mixture(axes, windows: list[Point], numbers: dict[str, int], starts: Boundaries) -> None:
    edges, shares = [0], []
    for window, given in zip(windows, tokens_between(windows, list(numbers)), strict=True):
        total = sum(given.values())
        if total:
            edges.append(window.tokens)
            shares.append({domain: tokens / total for domain, tokens in given.items()})
    below = [0.0] * len(shares)
    for domain, number in numbers.items():
        above = [low + share[domain] for low, share in zip(below, shares, strict=True)]
        # each window is drawn flat from its first token to its last: the mixture changes in steps, not in slopes
        look = {"facecolor": series_style(number)["color"], "hatch": series_hatch(number), "edgecolor": PAPER}
        bottom, top = [*below, below[-1]], [*above, above[-1]]
        axes.fill_between(edges, bottom, top, step="post", linewidth=0.4, alpha=0.9, **look)
        below = above
    axes.set(xlim=(0, edges[-1]), ylim=(0, 1), ylabel="share of tokens", xlabel="tokens seen")
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    token_axis(axes, starts)


def _settings(trained: list[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    """Rows of the phase table above the domains; what a phase that has not run does not know yet is a dash."""
    shown = {
        "start_tokens": ("begins at", format_count),
        "tokens": ("tokens", format_count),
        "steps": ("steps", "{:,}".format),
        "first_tokens_per_step": ("tokens per step, at first", format_count),
        "tokens_per_step": ("tokens per step", format_count),
        "sequence_length": ("sequence length", "{:,}".format),
        "seconds": ("time", duration),
        "final_loss": ("loss at the end", "{:.3f}".format),
    }
    return [
        (label, ["–" if phase.get(key) is None else write(phase[key]) for phase in trained])
        for key, (label, write) in shown.items()
        if key != "first_tokens_per_step" or any(key in phase for phase in trained)
    ]


def loss_section(facts: RunFacts, points: list[Point]) -> dict[str, Any] | None:
    """Training loss of all text and by domain, the learning rate, and the loss of safety tuning where it ran."""
    tuning = read_points(facts.run / "align" / "metrics.jsonl", domain=TUNING_DOMAIN)
    if not points and not tuning:
        return None
    starts = boundaries(facts, points)
    domains = [d for d in facts.domains if any(d in point.loss_by_domain for point in points)]
    figures = []
    with drawing():
        if points:
            figures.append(_loss_figure("loss", "Training loss, all domains", points, starts))
            styles = {domain: series_style(facts.domains.index(domain)) for domain in domains}
            figures.append(_loss_by_domain_figure(points, styles, starts))
            figures.append(_rate_figure(points, starts))
        if tuning:
            figures.append(_loss_figure("tuning-loss", "Loss of safety tuning, responses only", tuning, []))
    return {"figures": figures, "domains": domains}


def _loss_figure(name: str, title: str, points: list[Point], starts: Boundaries) -> dict[str, str]:
    figure = new_figure(*_SIZE)
    axes = figure.add_subplot()
    tokens = [point.tokens for point in points]
    lows, highs = [p.loss_low for p in points], [p.loss_high for p in points]
    axes.fill_between(tokens, lows, highs, color=AFTER, alpha=0.22, linewidth=0)
    axes.plot(tokens, [point.loss for point in points], color=AFTER)
    _label_loss(axes, tokens, highs, starts)
    return {"title": title, "svg": to_svg(figure, name, title)}


def _loss_by_domain_figure(points: list[Point], styles: dict[str, dict], starts: Boundaries) -> dict[str, Any]:
    figure = new_figure(*_SIZE)
    axes = figure.add_subplot()
    for domain, style in styles.items():
        known = [point for point in points if domain in point.loss_by_domain]
        losses = [point.loss_by_domain[domain] for point in known]
        axes.plot([p.tokens for p in known], losses, linewidth=1.2, **style)
    losses = [max(point.loss_by_domain.values(), default=0.0) for point in points]
    _label_loss(axes, [point.tokens for point in points], losses, starts)
    title = "Training loss by domain"
    return {"title": title, "svg": to_svg(figure, "loss-by-domain", title), "legend": list(styles)}


def _label_loss(axes, tokens: list[int], losses: list[float], starts: Boundaries) -> None:
    """Labels; and the fall of the first hundredth is cut off where it would flatten all that follows."""
    later = [loss for seen, loss in zip(tokens, losses, strict=True) if seen > tokens[-1] / 100]
    if later and max(losses) > 1.3 * max(later):
        axes.set_ylim(top=1.05 * max(later))
    axes.set(xlabel="tokens seen", ylabel="loss (nats per token)", xlim=(0, None))
    token_axis(axes, starts)


def _rate_figure(points: list[Point], starts: Boundaries) -> dict[str, str]:
    figure = new_figure(*_SIZE)
    axes = figure.add_subplot()
    axes.plot([point.tokens for point in points], [point.lr for point in points], color=INK)
    axes.set(xlabel="tokens seen", ylabel="learning rate", xlim=(0, None), ylim=(0, None))
    axes.yaxis.set_major_formatter(lambda rate, _: f"{rate:g}")
    token_axis(axes, starts)
    return {"title": "Learning rate", "svg": to_svg(figure, "learning-rate", "Learning rate")}
