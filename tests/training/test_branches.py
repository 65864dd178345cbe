"""Phases that branch off another: from its end or its middle, side by side in one run, resumed bit for bit."""

import io
import math
import shutil

import pytest
from rich.console import Console
from tests.heard import Heard
from tests.training.synthetic import tiny_config, write_tokens
from tests.training.test_edits import stop_at, weights
from tests.training.test_stage import go, ledger, metrics, run_killed_at

from aurora_m.release import phases_of_model, read_facts
from aurora_m.report import describe_ledger, describe_run, write_report
from aurora_m.report.metrics import read_points
from aurora_m.training import TrainConfig, build_segments
from aurora_m.training.checkpoint import list_checkpoints, read_record
from aurora_m.training.lineage import planned_tokens
from aurora_m.workspace import AuroraError, RecipeError, read_json, write_json


def branched(*, without: tuple[str, ...] = (), checkpoint: dict | None = None, **changes) -> TrainConfig:
    """base of 12 steps, CAP of 10, and two CATs on CAP at its fifth step (2,496 tokens), one more on its end."""
    base, cap = (phase.model_dump(exclude_unset=True) for phase in tiny_config().phases)
    cat = cap | {"tokens": 4 * 192, "lr": {"peak": 1e-3, "decay": "linear"}}
    phases = [
        base,
        cap,
        cat | {"name": "CAT-a", "from": "CAP@2400", "mixture": {"aa": 1.0}},
        cat | {"name": "CAT-b", "from": "CAP@2400", "lr": {"continues": True}} | changes,
        cat | {"name": "CAT-c", "from": "CAP"},
    ]
    phases = [phase for phase in phases if phase["name"] not in without]
    return tiny_config(phases=phases, checkpoint=checkpoint or {"every": 600})


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return write_tokens(tmp_path_factory.mktemp("branches") / "tokens")


@pytest.fixture(scope="module")
def whole(tokens, tmp_path_factory):
    out = tmp_path_factory.mktemp("branched") / "out"
    go(tokens, out, branched())
    return out


def of_phase(rows: list[dict], name: str) -> list[dict]:
    return [row for row in rows if row["phase"] == name]


def test_branches_go_on_from_the_checkpoint_that_the_recipe_names(whole):
    facts = read_json(whole / "train.json")
    rows = {row["name"]: row for row in facts["phases"]}
    assert (facts["final_phase"], facts["final_model"]) == ("CAT-c", "CAT-c/model")
    assert [rows[name]["start_tokens"] for name in ("CAT-a", "CAT-b", "CAT-c")] == [2496, 2496, 3456]
    assert rows["CAT-a"]["began_at"] == ["CAP", 17] and "began_at" not in rows["CAP"]
    assert facts["tokens"] == 3456 + 768 and facts["tokens_trained"] == 3456 + 3 * 768
    assert [path.name for path in list_checkpoints(whole / "CAP")] == [
        "step-00000017",
        "step-00000020",
        "step-00000022",
    ]
    for name, steps in (("CAT-a", range(18, 22)), ("CAT-b", range(18, 22)), ("CAT-c", range(23, 27))):
        assert [row["step"] for row in of_phase(metrics(whole), name)] == list(steps)
        assert {row["domain"] for row in of_phase(ledger(whole), name)} == {"aa", "bb", "cc"}


def test_a_branch_is_what_a_phase_after_a_shorter_cap_would_be(tokens, tmp_path):
    base, cap = (phase.model_dump(exclude_unset=True) for phase in tiny_config().phases)
    cap = cap | {"lr": {"peak": 2e-3, "decay": "constant"}}
    cat = cap | {"name": "CAT", "tokens": 4 * 192, "mixture": {"aa": 0.5, "bb": 0.5}}
    go(tokens, tmp_path / "branch", tiny_config(phases=[base, cap, cat | {"from": "CAP@2400"}]))
    go(tokens, tmp_path / "straight", tiny_config(phases=[base, cap | {"tokens": 5 * 192}, cat]))
    assert weights(tmp_path / "branch", "CAT") == weights(tmp_path / "straight", "CAT")
    of_cat = [of_phase(metrics(tmp_path / name), "CAT") for name in ("branch", "straight")]
    assert of_cat[0] == of_cat[1] and len(of_cat[0]) == 4


def test_rates_go_on_along_the_curve_that_was_left(whole):
    ours, theirs = of_phase(metrics(whole), "CAT-b"), of_phase(metrics(whole), "CAP")[5:9]
    assert [row["lr"] for row in ours] == [row["lr"] for row in theirs]


def test_a_branch_does_not_depend_on_its_siblings(tokens, whole, tmp_path):
    go(tokens, tmp_path, branched(without=("CAT-a", "CAT-c")))
    assert weights(tmp_path, "CAT-b") == weights(whole, "CAT-b")
    assert of_phase(metrics(tmp_path), "CAT-b") == of_phase(metrics(whole), "CAT-b")


def test_stops_change_no_bit(tokens, whole, tmp_path):
    for step in (20, 19, 24):  # in CAP behind the branch, in CAT-a, in CAT-c
        stop_at(step, tokens, tmp_path, branched())
    go(tokens, tmp_path, branched())
    assert metrics(tmp_path) == metrics(whole) and ledger(tmp_path) == ledger(whole)
    for name in ("CAP", "CAT-a", "CAT-b", "CAT-c"):
        assert weights(tmp_path, name) == weights(whole, name), name


def test_kills_change_no_bit(tokens, whole, tmp_path):
    moments = [170]
    run_killed_at(moments, tokens, tmp_path, "branched()", "from tests.training.test_branches import branched")
    for moment in moments:
        out = tmp_path / str(moment)
        assert metrics(out) == metrics(whole) and ledger(out) == ledger(whole)
        assert all(weights(out, name) == weights(whole, name) for name in ("CAP", "CAT-a", "CAT-b", "CAT-c"))


def test_a_branch_that_is_trained_again_leaves_the_others(tokens, whole, tmp_path):
    out = shutil.copytree(whole, tmp_path / "out")
    times = {
        name: (out / name / "model" / "model.safetensors").stat().st_mtime_ns for name in ("CAP", "CAT-a", "CAT-c")
    }
    go(tokens, out, branched(lr={"peak": 5e-4, "decay": "constant"}))
    assert times == {name: (out / name / "model" / "model.safetensors").stat().st_mtime_ns for name in times}
    assert [path.name[:6] for path in (out / "superseded").iterdir()] == ["CAT-b-"]
    assert [row["lr"] for row in of_phase(metrics(out), "CAT-b")] == [5e-4] * 4
    assert of_phase(metrics(out), "CAT-c") == of_phase(metrics(whole), "CAT-c")
    assert len(metrics(out)) == len(metrics(whole))


def test_an_edit_of_a_branch_under_way_goes_on(tokens, tmp_path):
    config, heard = branched(without=("CAT-b", "CAT-c")), Heard()
    stop_at(19, tokens, tmp_path, config, phase="CAT-a")
    phases = [phase.model_dump(exclude_unset=True) for phase in config.phases]
    phases[2]["mixture"] = {"bb": 1.0}
    facts = go(tokens, tmp_path, tiny_config(phases=phases), progress=heard)
    assert any("phase CAT-a goes on at 2.88K tokens with a new mixture" in line for line in heard.lines)
    assert [entry["tokens"] for entry in facts["phases"][2]["mixtures"]] == [2496, 2880]


def test_a_branch_added_later_needs_a_checkpoint_that_was_kept(tokens, tmp_path):
    go(tokens, tmp_path, branched(without=("CAT-a", "CAT-b", "CAT-c"), checkpoint={"every": 200, "keep": 1}))
    few = {"every": 200, "keep": 1}
    with pytest.raises(
        RecipeError, match=r"CAT-a: from CAP@2400: no checkpoint of CAP is kept there; there are CAP@3456;"
    ):
        go(tokens, tmp_path, branched(checkpoint=few))
    assert go(tokens, tmp_path, branched(without=("CAT-a", "CAT-b"), checkpoint=few))["final_phase"] == "CAT-c"


def test_a_damaged_branch_point_is_replaced_by_the_next_or_said(tokens, whole, tmp_path):
    out = shutil.copytree(whole, tmp_path / "out")
    (out / "CAP" / "checkpoints" / "step-00000017" / "__0_0.distcp").write_bytes(b"")
    heard = Heard()
    go(tokens, out, branched(mixture={"bb": 1.0}), progress=heard)
    assert any(line.startswith("warning: checkpoint") and "damaged" in line for line in heard.lines)
    record = read_record(list_checkpoints(out / "CAT-b")[-1])
    assert record["began_at"] == ["CAP", 20]


def test_the_model_that_goes_on_can_be_chosen(tokens, whole, tmp_path):
    out = shutil.copytree(whole, tmp_path / "out")
    config = branched().model_copy(update={"final_phase": "CAT-a"})
    facts = go(tokens, out, config)
    assert facts["final_model"] == "CAT-a/model" and facts["tokens"] == 2496 + 768
    assert not (out / "superseded").exists()


def test_schedules_follow_the_branch():
    segments = build_segments(branched().phases)
    assert segments[3] == segments[1] and segments[2].start == 2400 and segments[4].start == 3456
    assert build_segments(branched().phases, starts={"CAT-a": 2496})[2].start == 2496
    assert planned_tokens(branched().phases, "CAT-a") == {"base": 1536, "CAP": 864, "CAT-a": 768}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"from": "CAT-c"}, "from 'CAT-c' is no phase before it; those are base, CAP, CAT-a"),
        ({"from": "CAP@9999"}, "phase CAP goes from 1536 to 3456 tokens of the run"),
        ({"from": "CAP@many"}, "is not a quantity"),
        ({"from": "@200"}, "names no phase; write CAP, or CAP@200B"),
        ({"from": "base@600"}, "the ledger compares with the end of phase base"),
    ],
)
def test_branches_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        branched(**changes)
    with pytest.raises(ValueError, match="final_phase 'CATS' is no phase; the phases are base, CAP"):
        tiny_config(final_phase="CATS")


@pytest.fixture
def run(whole, tmp_path):
    """What the readers of a run need of one."""
    shutil.copytree(whole, tmp_path / "run" / "train")
    domains = {name: {"lang": None} for name in ("aa", "bb", "cc")}
    recipe = {"name": "branchy", "domains": domains, "train": branched().model_dump(mode="json")}
    write_json(tmp_path / "run" / "recipe.json", recipe)
    return tmp_path / "run"


def told(renderable) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(renderable)
    return console.export_text()


def test_readers_follow_the_way_to_one_model(run):
    facts = read_facts(run)
    assert facts.line == {"base": 1536, "CAP": 3456, "CAT-c": math.inf} and list(facts.branches) == ["CAT-a", "CAT-b"]
    assert {row["phase"] for row in facts.ledger} == {"base", "CAP", "CAT-c"}
    other = read_facts(run, "CAT-a")
    assert max(row["tokens"] for row in other.ledger if row["phase"] == "CAP") <= 2496
    assert [(row["name"], row["tokens"]) for row in phases_of_model(other)] == [
        ("base", 1536), ("CAP", 960), ("CAT-a", 768),
    ]  # fmt: skip
    points = read_points(run / "train" / "metrics.jsonl", line=other.line)
    assert [point.tokens for point in points] == sorted(point.tokens for point in points)
    assert {point.phase for point in points} == {"base", "CAP", "CAT-a"}


def test_branches_are_told_and_drawn(run, tmp_path):
    assert "Up to phase CAT-c; --phase shows another: CAT-a, CAT-b" in told(describe_ledger(run))
    assert "branchy, CAT-a" in told(describe_ledger(run, phase="CAT-a"))
    both = told(describe_ledger(run, phase="CAT-a", other_phase="CAT-b"))
    assert "branchy, CAT-a and branchy, CAT-b" in both
    with pytest.raises(AuroraError, match="phase 'CAT-x' has no measurements; those that have are base, CAP, CAT-a"):
        describe_ledger(run, phase="CAT-x")
    assert all(f"end of branch {name}" in told(describe_run(run)) for name in ("CAT-a", "CAT-b", "CAT-c"))
    page = write_report(run, tmp_path / "page").read_text()
    assert "CAT-b" in page and "begins at" in page
