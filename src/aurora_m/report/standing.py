"""Where a run stands, for the terminal: stages, last losses, the forgetting ledger."""

import json
from collections import deque
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from ..release import RunFacts, read_facts
from ..workspace import AuroraError, format_count, load_manifest, read_json

_STAGES = ("curate", "tokenize", "train", "align", "evaluate", "release")


def describe_run(run: Path) -> RenderableType:
    """Stages with their cost, the last training steps, and held-out bits-per-byte against the base.

    Raises:
        AuroraError: the folder is no run folder.
    """
    refuse_no_run(run)
    parts: list[RenderableType] = [
        f"[bold]{escape(read_json(run / 'recipe.json')['name'])}[/bold] in {escape(str(run))}"
    ]
    parts.append(_stage_table(run))
    for stage in ("train", "align"):
        if (run / stage / "metrics.jsonl").exists():
            parts.append(_step_table(run / stage / "metrics.jsonl", stage))
    if (run / "train" / "ledger.parquet").exists():
        parts += _ledger_tables(read_facts(run))
    page = run / "report" / "index.html"
    parts.append(
        f"report: {escape(str(page))}" if page.exists() else "no report yet: `aurora-m report RECIPE` draws one"
    )
    return Group(*parts)


def refuse_no_run(run: Path) -> None:
    """Checks that a folder is a run's.

    Raises:
        AuroraError: it is none.
    """
    if not (run / "recipe.json").exists():
        raise AuroraError(
            f"{run} is no run folder (it has no recipe.json); run folders are made by `aurora-m run RECIPE`"
        )


def _stage_table(run: Path) -> Table:
    table = Table("stage", "finished", "seconds", "CPU seconds", "peak memory", title="Stages", title_justify="left")
    for stage in _STAGES:
        manifest = load_manifest(run, stage)
        if manifest is None:
            table.add_row(stage, "not yet", "", "", "")
        else:
            memory = f"{manifest.peak_memory_bytes / 2**30:.2f} GiB"
            table.add_row(stage, manifest.finished, f"{manifest.seconds:.1f}", f"{manifest.cpu_seconds:.1f}", memory)
    return table


def _step_table(metrics: Path, stage: str) -> Table:
    table = Table(
        "phase", "step", "tokens", "loss", "rate", "tokens/s", title=f"Last steps of {stage}", title_justify="left"
    )
    with metrics.open(encoding="utf-8") as lines:
        tail = deque((line for line in lines if line.endswith("\n")), maxlen=5)
    for row in map(json.loads, tail):
        table.add_row(
            row["phase"],
            str(row["step"]),
            format_count(row["tokens"]),
            "left out" if row["kind"] == "skipped" else f"{row['loss']:.4f}",
            f"{row['lr']:.2e}",
            format_count(row["tokens_per_second"]),
        )
    return table


def _ledger_tables(facts: RunFacts) -> list[Table]:
    """The last entry; where phases branch, that of every branch."""
    tables = [_ledger_table(rows, f"Forgetting ledger, end of branch {name}") for name, rows in facts.branches.items()]
    end = f", end of branch {list(facts.line)[-1]}" if facts.branches else ", last entry"
    return [*tables, _ledger_table(facts.ledger, f"Forgetting ledger{end}")]


def _ledger_table(rows: list[dict[str, Any]], title: str) -> Table:
    last = {row["domain"]: row for row in rows}
    table = Table("domain", "bits per byte", "base", "change", title=title, title_justify="left")
    for domain, row in last.items():
        base = "" if row["base_bpb"] is None else f"{row['base_bpb']:.4f}"
        change = "" if row["change"] is None else f"{row['change']:+.1%}"
        error = "" if row["stderr"] is None else f" ± {row['stderr']:.4f}"
        table.add_row(escape(domain), f"{row['bpb']:.4f}{error}", base, change)
    return table
