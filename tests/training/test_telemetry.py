"""metrics.jsonl can be cut back to where a checkpoint stood."""

import json

import pytest

from aurora_m.training.telemetry import MetricsFile, round_figures


def test_cutting_goes_back_to_a_position(tmp_path):
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    assert metrics.position == 0
    metrics.write({"step": 1, "domain": "ääni"})
    position = metrics.position
    metrics.write({"step": 2})
    with metrics.path.open("ab") as file:
        file.write(b'{"step": 3, "lo')  # a kill in the middle of a line
    metrics.cut(position)
    metrics.write({"step": 2})
    assert [json.loads(line)["step"] for line in metrics.path.read_text().splitlines()] == [1, 2]


def test_cutting_a_file_that_is_not_there_or_shorter_does_nothing(tmp_path):
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    metrics.cut(0)
    metrics.cut(100)
    assert not metrics.path.exists()


def test_a_row_that_is_not_json_is_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        MetricsFile(tmp_path / "metrics.jsonl").write({"loss": float("nan")})


def test_figures_are_significant_ones():
    assert round_figures(123456.789, 3) == 123000 and round_figures(0.00123456, 3) == 0.00123
