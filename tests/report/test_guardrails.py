"""Guardrails in the report: a plot for each guarded domain, the decisions as a table, nothing where there are none."""

import json

from tests.report.run_folder import make_run

from aurora_m.report import write_report
from aurora_m.report.guardrails import guardrails_section


def decision(tokens: int, verdict: str, progress: float, change: float) -> dict:
    look = {"change": change, "stderr": 0.001, "budget": 0.02, "forecast": 0.018, "low": 0.01, "high": 0.03}
    look |= {"worst_ahead": 0.03, "share_before": 0.1, "share": 0.2, "needed": 0.2, "probability": 0.8}
    return {
        "phase": "CAP",
        "step": tokens // 100,
        "tokens": tokens,
        "progress": progress,
        "shares": {"en": 0.2, "fi": 0.8},
        "rate_factor": 1.0,
        "verdict": verdict,
        "hopeless": [],
        "infeasible": ["en"] if verdict == "infeasible" else [],
        "domains": {"en": look},
        "why": "en <b>+1.8%</b>",
    }


def write_decisions(folder, rows) -> None:
    (folder / "train").mkdir(parents=True, exist_ok=True)
    (folder / "train" / "guardrails.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_every_guarded_domain_has_a_plot_and_decisions_that_changed_nothing_no_row(tmp_path):
    rows = [decision(1000, "raise", 0.3, 0.03), decision(2000, "hold", 0.6, 0.02), decision(3000, "hold", 1, 0.019)]
    write_decisions(tmp_path, rows)
    section = guardrails_section(tmp_path, [("CAP", 500)])
    assert section is not None
    assert [row["done"] for row in section["table"]] == ["more replay", "at the phase's end"]
    assert [(panel["domain"], panel["inside"]) for panel in section["panels"]] == [("en", True)]
    assert section["panels"][0]["svg"].startswith("<svg")


def test_a_budget_that_was_given_up_is_named(tmp_path):
    write_decisions(tmp_path, [decision(1000, "infeasible", 0.3, 0.3)])
    section = guardrails_section(tmp_path, [])
    assert section is not None and section["table"][0]["infeasible"] == ["en"]
    assert not section["panels"][0]["inside"]


def test_without_guardrails_there_is_no_section_and_with_them_the_page_shows_it_escaped(tmp_path):
    run = make_run(tmp_path / "run")
    assert guardrails_section(run, []) is None
    assert "Guardrails: replay" not in write_report(run, tmp_path / "before").read_text()
    write_decisions(run, [decision(2_400_000, "raise", 0.3, 0.03), decision(3_600_000, "hold", 1, 0.019)])
    page = write_report(run, tmp_path / "after").read_text()
    assert "Guardrails: replay" in page and "more replay" in page
    assert "<b>+1.8%</b>" not in page
