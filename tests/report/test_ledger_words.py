"""`aurora-m ledger`: what it says of one run and of two, and what it draws."""

import io
import json

import pyarrow.parquet as pq
import pytest
from rich.console import Console
from tests.report.run_folder import BASE_BPB, DOMAINS, HOSTILE, LAST_BPB, make_run

from aurora_m.release import read_facts
from aurora_m.report import describe_ledger, draw_ledger
from aurora_m.report.ledger_words import _course
from aurora_m.report.standing import _ledger_table, _step_table
from aurora_m.workspace import AuroraError, RecipeError, read_json, write_json


def said(renderable, width: int = 80) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(renderable)
    return console.export_text()


def change_ledger(run, change) -> None:
    """Rewrites each row of a run's ledger."""
    path = run / "train" / "ledger.parquet"
    table = pq.read_table(path)
    pq.write_table(table.from_pylist([change(row) for row in table.to_pylist()], schema=table.schema), path)


def test_one_run_says_base_end_worst_and_course(tmp_path):
    text = said(describe_ledger(make_run(tmp_path / "run")))
    for domain in DOMAINS:
        (line,) = [line for line in text.splitlines() if f" {domain} " in line]
        base, now = (float(word) for word in line.split()[1:3])
        assert (base, now) == (pytest.approx(BASE_BPB[domain]), pytest.approx(LAST_BPB[domain], rel=1e-2))
    assert max(len(line) for line in text.splitlines()) <= 80
    assert text.index(" en ") < text.index(" fi ")  # what the base knew comes first


def test_two_runs_stand_side_by_side_with_how_far_they_are_apart(tmp_path):
    first, second = make_run(tmp_path / "first"), make_run(tmp_path / "second")
    write_json(second / "recipe.json", read_json(second / "recipe.json") | {"name": f"[red]{HOSTILE}"})
    last = max(row["tokens"] for row in pq.read_table(second / "train" / "ledger.parquet").to_pylist())
    change_ledger(second, lambda row: row | ({"bpb": row["bpb"] * 1.1} if row["tokens"] == last else {}))
    text = said(describe_ledger(first, second), 120)
    assert text.count("+10.0% (") == len(DOMAINS)
    assert "[red]" in text
    assert "warning" not in text


def test_what_cannot_be_compared_is_said(tmp_path):
    first, second = make_run(tmp_path / "first"), make_run(tmp_path / "second")
    change_ledger(
        second, lambda row: row | {"bytes": row["bytes"] + (row["domain"] == "fi"), "tokens": 2 * row["tokens"]}
    )
    text = said(describe_ledger(first, second), 120)
    assert "held-out text differs in fi" in text
    assert "trained on" in text


@pytest.mark.parametrize("ending", [".svg", ".png", ".pdf"])
def test_it_draws_one_plot_a_domain(tmp_path, ending):
    run = make_run(tmp_path / "run")
    path = tmp_path / f"plot{ending}"
    draw_ledger(run, run, path)
    start = {".svg": b"<?xml", ".png": b"\x89PNG", ".pdf": b"%PDF"}[ending]
    assert path.read_bytes().startswith(start)
    if ending == ".svg":
        assert all(f">{domain}<" in path.read_text() for domain in DOMAINS)


def test_wrong_input_is_named(tmp_path):
    run = make_run(tmp_path / "run")
    with pytest.raises(RecipeError, match=r"plot\.jpeg: expected a file name that ends in \.svg, \.png, \.pdf"):
        draw_ledger(run, None, tmp_path / "plot.jpeg")
    with pytest.raises(AuroraError, match="no run folder"):
        describe_ledger(tmp_path)
    (run / "train" / "ledger.parquet").unlink()
    with pytest.raises(AuroraError, match="has no ledger yet"):
        describe_ledger(run)


def test_a_course_keeps_its_ends_and_its_extremes():
    assert _course([1.0]) == "▁"
    assert _course([1.0, 1.0]) == "▁▁"
    assert _course([3.0, 2.0, 1.0]) == "█▅▁" or _course([3.0, 2.0, 1.0]) == "█▄▁"
    long = _course([float(n) for n in range(1000)])
    assert len(long) == 12 and long[-1] == "█"


def test_show_knows_steps_left_out_and_sets_of_one_document(tmp_path):
    row = {"kind": "skipped", "phase": "CAP", "step": 7, "tokens": 700, "lr": 1e-3, "tokens_per_second": 10.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row | {"reason": "spike"}) + "\n")
    assert "left out" in said(_step_table(tmp_path / "metrics.jsonl", "train"))
    run = make_run(tmp_path / "run")
    change_ledger(run, lambda row: row | {"stderr": None})
    assert "±" not in said(_ledger_table(read_facts(run).ledger, "Ledger"))
