"""The plot and tables of a merge: every candidate, the budget, what was kept, in the page, a file and the terminal."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from tests.report.run_folder import make_run

from aurora_m.report import describe_merge, draw_merge, write_report
from aurora_m.workspace import AuroraError, RecipeError

MEAN = "mean of the last 3 checkpoints"


def candidate(name: str, share: float, en: float, code: float, learning: float, budget: dict) -> dict:
    changes = {"en": en, "code": code, "fi": learning, "hi": learning}
    over = {domain: changes[domain] + 0.001 - allowed for domain, allowed in budget.items()}
    worst = max(over, key=lambda domain: over[domain])
    return {
        "name": name,
        "average_last": 3 if name == MEAN else 1,
        "base_share": share,
        "inside": over[worst] <= 0,
        "excess": over[worst],
        "worst": worst,
        "learning": learning,
        "learning_stderr": 0.002,
        "domains": {d: {"bpb": 1.0 + change, "change": change, "stderr": 0.001} for d, change in changes.items()},
    }


def merged_run(folder: Path, budget: dict) -> Path:
    run = make_run(folder)
    candidates = [
        candidate("unmerged", 0.0, 0.010, 0.031, -0.31, budget),
        candidate(MEAN, 0.0, 0.009, 0.028, -0.30, budget),
        candidate("base share 0.1", 0.1, 0.006, 0.022, -0.29, budget),
        candidate("base share 0.3", 0.3, 0.002, 0.009, -0.22, budget),
    ]
    made = {
        "base": "base/model",
        "final": "CAT/model",
        "model": "merged/model",
        "budget": budget,
        "learned": ["fi", "hi"],
        "candidates": candidates,
        "chosen": "base share 0.3",
        "reason": "it is the only one <inside>",
        "inside": True,
        "seconds": 3.2,
    }
    (run / "train" / "merge.json").write_text(json.dumps(made))
    facts = json.loads((run / "train" / "train.json").read_text())
    (run / "train" / "train.json").write_text(json.dumps(facts | {"merge": {"of": "CAT/model"}}))
    return run


@pytest.fixture
def run(tmp_path) -> Path:
    return merged_run(tmp_path / "run", {"en": 0.01, "code": 0.01})


def test_the_page_shows_every_candidate_and_what_was_kept(run, tmp_path):
    page = write_report(run, tmp_path / "out").read_text(encoding="utf-8")
    assert 'aria-label="Learning against forgetting of models between base and final"' in page
    for text in ("unmerged", MEAN, "base share 0.1", "worst change of en, code (budget shaded)"):
        assert text in page
    assert "it is the only one &lt;inside&gt;" in page and "<strong>base share 0.3</strong>" in page


def test_a_merge_that_later_training_made_void_is_not_shown(run, tmp_path):
    facts = json.loads((run / "train" / "train.json").read_text())
    del facts["merge"]
    (run / "train" / "train.json").write_text(json.dumps(facts))
    assert "Merging with the base" not in write_report(run, tmp_path / "out").read_text(encoding="utf-8")
    with pytest.raises(AuroraError, match="has not been merged"):
        describe_merge(run)


def test_the_terminal_lists_learning_and_every_guarded_domain(run):
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(describe_merge(run))
    text = console.export_text()
    assert "code of 1.0%" in text and "-22.00% ± 0.20%" in text and "+0.90% ± 0.10%" in text
    kept = next(line for line in text.splitlines() if line.strip().startswith("→"))
    assert "base share 0.3" in kept and "yes" in kept
    assert "Kept: base share 0.3: it is the only one <inside>" in text


@pytest.mark.parametrize("budget", [{"en": 0.01, "code": 0.01}, {"en": 0.01, "code": 0.02}, {"code": 0.0}])
def test_the_plot_is_written_in_each_format_for_any_budget(tmp_path, budget):
    run = merged_run(tmp_path / "run", budget)
    for suffix, start in ((".svg", b"<?xml"), (".png", b"\x89PNG"), (".pdf", b"%PDF")):
        draw_merge(run, tmp_path / f"merge{suffix}")
        assert (tmp_path / f"merge{suffix}").read_bytes().startswith(start)
    names = ", ".join(budget)
    expected = f"worst change of {names} " + ("(budget" if len(set(budget.values())) == 1 else "beyond its budget")
    assert expected in (tmp_path / "merge.svg").read_text(encoding="utf-8")
    with pytest.raises(RecipeError, match="--plot"):
        draw_merge(run, tmp_path / "merge.bmp")
