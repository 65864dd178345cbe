"""The report of a run: `write_report` reads the run folder and writes one HTML page that needs nothing else."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from aurora_m.release import RunFacts, duration, percent, plain, read_facts, size
from aurora_m.workspace import format_count, write_text

from .costs import costs_section, headline, recipe_text
from .curation import curation_section, data_section
from .figures import SERIES_COUNT
from .guardrails import guardrails_section
from .incidents import incidents_section
from .ledger import ledger_section
from .merging import merging_section
from .metrics import read_points
from .safety import evaluation_section
from .training import boundaries, loss_section, mixture_section


def write_report(run: Path, out: Path) -> Path:
    """Writes `out/index.html`: the whole run on one self-contained page. Stages that have not run yet are named.

    Raises:
        AuroraError: `run` is no run folder, or a result file in it is damaged.
    """
    page = _environment().get_template("page.html.j2").render(_content(read_facts(run)))
    path = out / "index.html"
    write_text(path, page)
    return path


def _content(facts: RunFacts) -> dict[str, Any]:
    points = read_points(facts.run / "train" / "metrics.jsonl", line=facts.line)
    return {
        "head": headline(facts),
        "order": {domain: number for number, domain in enumerate(facts.domains)},
        "curation": curation_section(facts),
        "data": data_section(facts),
        "mixture": mixture_section(facts, points),
        "losses": loss_section(facts, points),
        "incidents": incidents_section(facts.run),
        "ledger": ledger_section(facts, boundaries(facts, points)),
        "guardrails": guardrails_section(facts.run, boundaries(facts, points), facts.line),
        "merge": merging_section(facts),
        "evaluation": evaluation_section(facts),
        "costs": costs_section(facts),
        "recipe": recipe_text(facts),
        "version": next((m.versions.get("aurora-m") for m in facts.manifests.values()), None),
        "finished": max((m.finished for m in facts.manifests.values()), default=""),
    }


def _swatch(number: int) -> str:
    """The legend's patch of the n-th domain as CSS: striped where the colours come round again."""
    colour = f"var(--series-{number % SERIES_COUNT + 1})"
    if number < SERIES_COUNT:
        return f"background:{colour}"
    return f"background:repeating-linear-gradient(135deg,{colour} 0 3px,var(--paper) 3px 4.5px)"


def _environment() -> Environment:
    """Templates with everything escaped; only the pictures and the style sheet, which are ours, are let through."""
    environment = Environment(
        loader=PackageLoader("aurora_m.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = Path(__file__).with_name("templates").joinpath("page.css").read_text(encoding="utf-8")
    environment.globals |= {"style": Markup(style), "swatch": _swatch}
    environment.filters |= {
        "percent": percent,
        "signed": lambda share: percent(share, signed=True),
        "size": size,
        "duration": duration,
        "tokens": format_count,
        "count": lambda number: f"{number:,}",
        "bpb": lambda bpb: "–" if bpb is None else f"{bpb:.3f}",
        "plain": plain,
        "picture": Markup,
    }
    return environment
