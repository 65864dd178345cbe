"""The report tells which steps were left out and which documents training does without."""

import json
from pathlib import Path

from tests.report.run_folder import HOSTILE, make_run

from aurora_m.report import write_report
from aurora_m.report.incidents import incidents_section


def troubled(run: Path) -> Path:
    make_run(run)
    with (run / "train" / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write("\n")
        for step in range(900, 930):
            row = {"kind": "skipped", "phase": "CAP", "step": step, "tokens": 0, "reason": "loss nan"}
            file.write(json.dumps(row) + "\n")
        file.write('{"kind": "skipped", "ph')  # killed while writing
    folder = run / "train" / "CAP"
    folder.mkdir(exist_ok=True)
    ids = [f"web-{number}" for number in range(70)]
    entry = {
        "step": 926,
        "reasons": ["loss nan"] * 4,
        "back_to": "CAP/step-00000900",
        "documents": {"fi": list(range(71))},
        "ids": {"fi": [HOSTILE, *ids]},
    }
    (folder / "quarantine.json").write_text(json.dumps([entry]), encoding="utf-8")
    return run


def test_steps_left_out_and_ways_back_are_told_in_bounds(tmp_path):
    section = incidents_section(troubled(tmp_path / "run"))
    assert section is not None
    assert section["count"] == 30 and [row["step"] for row in section["skipped"]] == list(range(910, 930))
    (way,) = section["ways_back"]
    assert way["step"] == 926 and len(way["documents"]) == 50 and way["more"] == 21


def test_the_page_shows_them_escaped_and_is_silent_where_nothing_happened(tmp_path):
    page = write_report(troubled(tmp_path / "run"), tmp_path / "out").read_text(encoding="utf-8")
    assert "Steps left out: 30" in page and "back to CAP/step-00000900" in page and HOSTILE not in page
    page = write_report(make_run(tmp_path / "calm"), tmp_path / "out2").read_text(encoding="utf-8")
    assert "Steps left out" not in page
