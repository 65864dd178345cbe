"""The command line teaches, answers at once, and never shows a traceback for a user's mistake."""

import subprocess
import sys

import pytest
from tests.conftest import REPOSITORY
from tests.small_run import aurora, make_project

COMMANDS = [
    "run",
    "curate",
    "tokenize",
    "train",
    "align",
    "evaluate",
    "release",
    "report",
    "explain",
    "plan",
    "probe",
    "launch",
    "show",
    "ledger",
    "merge",
    "fertility",
    "inspect",
    "train-classifier",
    "learn-stop-words",
]


def test_help_names_every_command(tmp_path):
    text = aurora("--help", cwd=tmp_path).stdout
    assert all(command in text for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, tmp_path):
    assert "Usage" in aurora(command, "--help", cwd=tmp_path).stdout


def test_help_imports_nothing_heavy():
    script = "import sys; import aurora_m.cli; print([m for m in ('torch','transformers','pyarrow','numba','pydantic') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "[]"


def test_explain_needs_no_torch():
    script = (
        "import sys; from aurora_m.recipe import Recipe; Recipe.load('recipes/quickstart.yaml');"
        "print([m for m in ('torch', 'transformers', 'matplotlib', 'numba') if m in sys.modules])"
    )
    from tests.conftest import REPOSITORY

    assert subprocess.check_output([sys.executable, "-c", script], text=True, cwd=REPOSITORY).strip() == "[]"


def test_a_wrong_recipe_exits_with_2_and_one_message(tmp_path):
    make_project(tmp_path)
    result = aurora("explain", "small.yml", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith("error: recipe small.yml does not exist")


def test_explain_tells_phases_and_what_would_run(tmp_path):
    make_project(tmp_path)
    text = aurora("explain", "small.yaml", cwd=tmp_path).stdout
    for word in ("CAP", "notes", "letters", "not done yet", "cosine to"):
        assert word in text


def test_showing_what_is_no_run_says_so(tmp_path):
    result = aurora("show", tmp_path, cwd=tmp_path)
    assert result.returncode == 1
    assert "is no run folder" in result.stderr


@pytest.mark.parametrize("option", [("--rates", "0"), ("--part", "0"), ("--shares", "0,1"), ("--shares", "much")])
def test_a_probe_of_nothing_is_refused_before_anything_runs(option, tmp_path):
    result = aurora("probe", REPOSITORY / "recipes/quickstart.yaml", *option, cwd=tmp_path)
    assert result.returncode == 2 and f"{option[0]} {option[1]}: expected numbers" in result.stderr
    assert not list(tmp_path.iterdir())
