"""The train stage: resumes bit for bit, keeps what is unchanged, refuses what does not fit, never half-writes."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.conftest import PYTHONPATH
from tests.heard import Heard
from tests.training.synthetic import tiny_base, tiny_config, write_tokens

from aurora_m.model import BaseConfig, load_model
from aurora_m.training import StoppedByUser, train
from aurora_m.training import stage as stage_module
from aurora_m.training.checkpoint import list_checkpoints
from aurora_m.training.interrupt import EXIT_STOPPED_BY_SCHEDULER
from aurora_m.training.last_rate import read_last_rate
from aurora_m.training.state import TrainingState
from aurora_m.training.telemetry import MetricsFile
from aurora_m.workspace import AuroraError, RecipeError, read_json

TIMING = ("seconds", "tokens_per_second", "data_wait", "checkpoint_seconds")


def go(tokens: Path, out: Path, config=None, base=None, base_folder=None, progress=None) -> dict:
    return train(
        config or tiny_config(),
        base or tiny_base(),
        tokens,
        out,
        seed=1,
        base_folder=base_folder,
        progress=progress or Heard(),
    )


def metrics(out: Path) -> list[dict]:
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in TIMING} for row in rows]


def ledger(out: Path) -> list[dict]:
    return pq.read_table(out / "ledger.parquet").to_pylist()


def same_run(a: Path, b: Path) -> None:
    """Losses, ledger and final weights are equal to the last bit."""
    assert metrics(a) == metrics(b)
    assert ledger(a) == ledger(b)
    for phase in ("base", "CAP"):
        weights = [(out / phase / "model" / "model.safetensors").read_bytes() for out in (a, b)]
        assert weights[0] == weights[1], phase


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return write_tokens(tmp_path_factory.mktemp("train") / "tokens")


@pytest.fixture(scope="module")
def whole(tokens, tmp_path_factory):
    """A run that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole")
    go(tokens, out)
    return out


def with_phase(index: int, **changes):
    phases = [phase.model_dump(exclude_unset=True) for phase in tiny_config().phases]
    phases[index] |= changes
    return tiny_config(phases=phases)


# ---- what a run leaves


def test_a_run_reports_what_it_did(whole):
    facts = read_json(whole / "train.json")
    assert (facts["base_model"], facts["final_model"]) == ("base/model", "CAP/model")
    assert facts["tokens"] == 12 * 128 + 10 * 192
    base, cap = facts["phases"]
    assert (base["steps"], cap["steps"], cap["start_tokens"]) == (12, 10, 1536)
    assert base["tokens_by_domain"] == {"aa": 1152, "bb": 384}
    assert sum(cap["tokens_by_domain"].values()) == cap["tokens"] == 1920
    assert 0 < base["epochs_by_domain"]["aa"] < cap["epochs_by_domain"]["aa"] < 1
    assert cap["final_loss"] == metrics(whole)[-1]["loss"]


def test_metrics_have_a_row_per_step_and_losses_fall(whole):
    rows = metrics(whole)
    assert [row["step"] for row in rows] == list(range(1, 23))
    assert [row["tokens"] for row in rows[10:13]] == [1408, 1536, 1728]
    assert rows[11]["loss"] < rows[0]["loss"] - 0.05
    assert rows[-1]["tokens_by_domain"] == {"aa": 1664, "bb": 832, "cc": 960}
    assert rows[11]["lr"] == pytest.approx(3e-4) and rows[-1]["lr"] == 0


def test_the_ledger_has_step_0_the_schedule_and_the_phase_ends(whole):
    rows = ledger(whole)
    assert sorted({row["step"] for row in rows}) == [0, 8, 12, 15, 20, 22]
    assert {row["domain"] for row in rows} == {"aa", "bb", "cc"}
    assert all(row["base_bpb"] is None for row in rows if row["step"] < 12)
    assert all(row["change"] == 0 for row in rows if row["step"] == 12)
    assert all(row["change"] == row["bpb"] / row["base_bpb"] - 1 for row in rows if row["step"] > 12)


def test_models_are_exported_and_checkpoints_pruned(whole):
    assert load_model(whole / "CAP" / "model").config.hidden_size == 32
    assert (whole / "CAP" / "model" / "tokenizer.json").exists()
    assert [path.name for path in sorted((whole / "base" / "checkpoints").iterdir())] == [
        "step-00000010",
        "step-00000012",
    ]
    assert not [path for path in whole.rglob("*") if "incomplete" in path.name]


def test_running_again_changes_nothing(tokens, whole):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("model.safetensors")}
    facts = read_json(whole / "train.json")
    assert go(tokens, whole) == facts
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("model.safetensors")} == before


def test_tokens_that_make_no_whole_steps_are_rounded_and_reported(tokens, tmp_path):
    facts = go(tokens, tmp_path, with_phase(1, tokens=500))
    assert (facts["phases"][1]["tokens"], facts["phases"][1]["tokens_asked"]) == (576, 500)


def test_a_deleted_model_is_exported_again(tokens, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "base" / "model")
    go(tokens, tmp_path / "out")
    same_run(whole, tmp_path / "out")


# ---- stopping and resuming


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("steps", [[1], [5, 11], [12], [12, 13, 22]])
def test_resume_is_bitwise_equal_in_a_phase_and_across_the_boundary(
    tokens, whole, tmp_path, monkeypatch, steps, signal_number
):
    count = TrainingState.count
    pending = list(steps)

    def count_and_signal(self, *arguments):
        count(self, *arguments)
        if pending and self.step == pending[0]:
            os.kill(os.getpid(), signal_number)

    monkeypatch.setattr(TrainingState, "count", count_and_signal)
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    while pending:
        with pytest.raises(StoppedByUser, match=f"at step {pending[0]} .*to resume") as stopped:
            go(tokens, tmp_path)
        assert stopped.value.exit_code == (0 if signal_number == signal.SIGINT else EXIT_STOPPED_BY_SCHEDULER)
        assert metrics(tmp_path) == metrics(whole)[: pending.pop(0)]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    go(tokens, tmp_path)
    same_run(whole, tmp_path)


def test_a_second_signal_stops_at_once(tokens, tmp_path, monkeypatch):
    def signal_twice(self, row):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(MetricsFile, "write", signal_twice)
    with pytest.raises(KeyboardInterrupt):
        go(tokens, tmp_path)
    assert not (tmp_path / "base" / "checkpoints").exists()


KILLER = """
import os, sys
from pathlib import Path
import aurora_m.training.stage
from tests.training.killed import TOUCHES, finished
from tests.training.synthetic import tiny_base, tiny_config
from aurora_m.workspace import Progress

def work(out, kill_at):
    return finished(
        lambda: aurora_m.training.stage.train(
            tiny_config(), tiny_base(), Path(sys.argv[1]), out, seed=1, base_folder=None, progress=Progress(quiet=True)),
        kill_at, [*TOUCHES, (Path, "open"), (os, "fsync")])

for kill_at in map(int, sys.argv[3:]):
    out = Path(sys.argv[2]) / str(kill_at)
    kills = 0
    # Killed at the same count in every life, until a life gets through; then undisturbed.
    while not work(out, kill_at if kills < 3 else 0):
        kills += 1
    print(kill_at, kills)
"""


def run_killed_at(
    moments: list[int], tokens: Path, folder: Path, config: str = "tiny_config()", more: str = ""
) -> None:
    """Runs in `folder`/<moment> that die at that touch of the disk, some times over, and go on to their end."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": PYTHONPATH}
    script = more + KILLER.replace("tiny_config(), tiny_base()", f"{config}, tiny_base()")
    command = [sys.executable, "-c", script, str(tokens), str(folder), *map(str, moments)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180)
    assert result.returncode == 0, result.stderr
    assert all(int(line.split()[1]) >= 1 for line in result.stdout.splitlines())  # each was killed


def test_a_run_killed_at_any_touch_of_the_disk_ends_as_if_it_never_was(tokens, whole, tmp_path):
    moments = [3, 61, 75, 103, 150, 211]
    run_killed_at(moments, tokens, tmp_path)
    for moment in moments:
        same_run(whole, tmp_path / str(moment))


@pytest.mark.parametrize("name", ["__0_0.distcp", "state.json", ".metadata"])
def test_a_damaged_checkpoint_costs_a_warning_and_the_steps_since_the_one_before(tokens, whole, tmp_path, name):
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    last = out / "CAP" / "checkpoints" / "step-00000022"
    (last / name).write_bytes((last / name).read_bytes()[:100])
    heard = Heard()
    go(tokens, out, progress=heard)
    assert any(line.startswith("warning: checkpoint") and "damaged" in line for line in heard.lines)
    assert any("resuming after step 20 of phase CAP" in line for line in heard.lines)
    same_run(whole, out)
    assert (out / "superseded" / "CAP-step-00000022-damaged").exists()


def test_with_every_checkpoint_damaged_it_starts_again(tokens, whole, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    for checkpoint in out.glob("*/checkpoints/step-*"):
        (checkpoint / "__0_0.distcp").write_bytes(b"")
    go(tokens, out)
    same_run(whole, out)


# ---- what is redone


def test_a_change_of_the_last_phase_keeps_the_first(tokens, whole, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    base_model = out / "base" / "model" / "model.safetensors"
    before = base_model.stat().st_mtime_ns
    go(tokens, out, with_phase(1, tokens=4 * 192))
    assert base_model.stat().st_mtime_ns == before
    assert [row["phase"] for row in metrics(out)] == ["base"] * 12 + ["CAP"] * 4
    assert metrics(out)[:12] == metrics(whole)[:12]
    (aside,) = (out / "superseded").iterdir()
    assert (
        aside.name.startswith("CAP-")
        and (aside / "model").exists()
        and len(list((aside / "checkpoints").iterdir())) == 2
    )
    assert len((aside / "metrics.jsonl").read_text().splitlines()) == 10


def test_a_change_of_the_first_phase_redoes_all(tokens, whole, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    go(tokens, out, with_phase(0, tokens=8 * 128))
    assert [row["phase"] for row in metrics(out)] == ["base"] * 8 + ["CAP"] * 10
    assert {path.name.split("-")[0] for path in (out / "superseded").iterdir()} == {"base", "CAP"}


def test_schedules_of_ledger_and_checkpoints_change_no_result(tokens, whole, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    go(tokens, out, tiny_config(ledger={"every": 500}, checkpoint={"every": 100, "keep": 1}))
    assert not (out / "superseded").exists()


# ---- bases


def test_an_imported_base_is_the_reference_from_step_0(tokens, whole, tmp_path):
    base = BaseConfig(path=str(whole / "base" / "model"))
    facts = go(tokens, tmp_path, tiny_config(phases=tiny_config().phases[1:]), base, whole / "base" / "model")
    assert facts["base_model"] == "initial/model"
    at_start = [row for row in ledger(tmp_path) if row["step"] == 0]
    assert [row["change"] for row in at_start] == [0, 0, 0]
    assert load_model(tmp_path / "initial" / "model").config == load_model(whole / "base" / "model").config


def test_another_base_redoes_everything(tokens, whole, tmp_path):
    config = tiny_config(phases=tiny_config().phases[1:])
    for phase in ("base", "CAP"):
        folder = whole / phase / "model"
        go(tokens, tmp_path, config, BaseConfig(path=str(folder)), folder)
    assert {path.name.split("-")[0] for path in (tmp_path / "superseded").iterdir()} == {"initial", "CAP"}


def test_the_base_of_another_run_hands_on_the_rate_it_ended_with(tokens, whole, tmp_path):
    lr = {"peak": 1e-3, "warmup": "4 steps", "start": "last", "decay": "constant"}
    folder = whole / "base" / "model"
    config = tiny_config(phases=[{**with_phase(1).phases[1].model_dump(exclude_unset=True), "lr": lr}])
    go(tokens, tmp_path, config, BaseConfig(path=str(folder)), folder)
    rates = [row["lr"] for row in metrics(tmp_path)]
    assert read_json(whole / "train.json")["phases"][0]["final_lr"] == pytest.approx(3e-4)
    assert rates[:4] == pytest.approx([3e-4 + 7e-4 * step / 4 for step in (1, 2, 3, 4)])
    shutil.rmtree(tmp_path / "CAP" / "model")
    go(tokens, tmp_path, config, BaseConfig(path=str(folder)), folder)
    assert read_last_rate(tmp_path / "CAP" / "model") == 1e-3


def test_a_mixture_by_rule_is_said_and_recorded_as_shares(tokens, whole, tmp_path):
    facts = read_json(tokens / "tokens.json")
    held = {domain: facts["domains"][domain]["train"]["tokens"] for domain in ("aa", "bb", "cc")}
    rule, heard = {"unimax": 0.2, "domains": ["aa", "bb", "cc"]}, Heard()
    go(tokens, tmp_path, with_phase(1, mixture={"temperature": 2, "domains": ["aa", "bb"], "shares": {"cc": 0.5}}))
    shares = read_json(tmp_path / "train.json")["phases"][1]["mixture"]
    roots = held["aa"] ** 0.5, held["bb"] ** 0.5
    assert shares == pytest.approx({"cc": 0.5, "aa": roots[0] / sum(roots) / 2, "bb": roots[1] / sum(roots) / 2})
    # The same shares written out are the same phase.
    before = metrics(tmp_path)
    go(tokens, tmp_path, with_phase(1, mixture=shares), progress=heard)
    assert metrics(tmp_path) == before and heard.lines == []
    with pytest.raises(RecipeError, match=r"phase CAP: 0.2 epochs of aa, bb, cc are .* tokens, and unimax has 1.92K"):
        go(tokens, tmp_path / "none", with_phase(1, mixture=rule))
    go(tokens, tmp_path, with_phase(1, mixture=rule | {"unimax": 4}), progress=heard)
    assert any(
        line.startswith("phase CAP takes aa 33.33% (0.") and "epochs), bb 33.33%" in line for line in heard.lines
    )


# ---- refusals


def phases_with(**changes):
    phases = [phase.model_dump(exclude_unset=True) for phase in tiny_config().phases]
    return tiny_config(phases=[phases[0], phases[1] | changes])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (phases_with(mixture={"aa": 0.5, "dd": 0.5}), "phase CAP: the mixture names an unknown domain 'dd'"),
        (
            phases_with(mixture={"aa": 0.5, "bb": 0.4}),
            "phase CAP: shares sum to 0.9, expected 1.0; did you leave out 'cc'",
        ),
        (phases_with(sequence_length=96), "phase CAP: sequence_length 96 is more than the model's 64 positions"),
    ],
)
def test_what_does_not_fit_together_is_refused_before_anything_is_written(tokens, tmp_path, config, message):
    with pytest.raises(RecipeError, match=message):
        go(tokens, tmp_path / "out", config)
    assert not (tmp_path / "out").exists()


def test_a_domain_without_training_tokens_is_named(tokens, tmp_path):
    facts = read_json(tokens / "tokens.json")
    facts["domains"]["cc"]["train"] = {"documents": 0, "bytes": 0, "tokens": 0}
    with pytest.raises(RecipeError, match="phase CAP: domain 'cc' has no training tokens"):
        stage_module.check_phases(tiny_config(), facts)


def test_a_base_with_a_smaller_vocabulary_than_the_tokenizer_is_refused(tokens, whole, tmp_path):
    bigger = tmp_path / "tokens"
    shutil.copytree(tokens, bigger)
    facts = read_json(bigger / "tokens.json")
    facts["tokenizer"]["vocab_size"] = 400
    (bigger / "tokens.json").write_text(json.dumps(facts))
    folder = whole / "base" / "model"
    with pytest.raises(RecipeError, match="the tokenizer has 400 tokens and the base model 300"):
        go(bigger, tmp_path / "out", base=BaseConfig(path=str(folder)), base_folder=folder)


def test_many_epochs_are_warned_about_in_one_line(tokens, tmp_path):
    facts, heard = read_json(tokens / "tokens.json"), Heard()
    stage_module.warn_of_epochs(tiny_config(), facts, heard)
    assert heard.lines == []
    stage_module.warn_of_epochs(with_phase(1, tokens=100_000), facts, heard)
    (line,) = heard.lines
    assert line.startswith("warning: more than 4 epochs over aa 10.") and "cc" in line


# ---- trouble


def test_a_disk_that_fills_up_ends_training_with_one_message_and_costs_no_bit(tokens, whole, tmp_path, monkeypatch):
    class Usage:
        free = 10_000

    calls = []
    free = shutil.disk_usage

    def filling(path):
        calls.append(path)
        return Usage if len(calls) == 4 else free(path)

    monkeypatch.setattr(shutil, "disk_usage", filling)
    with pytest.raises(AuroraError, match=r"no room for checkpoint .*CAP.*10KB are free; make room and run again"):
        go(tokens, tmp_path)
    assert not list(tmp_path.rglob("*incomplete*"))
    go(tokens, tmp_path)
    same_run(whole, tmp_path)


def test_checkpoints_beside_the_loop_and_in_it_are_the_same(tokens, whole, tmp_path):
    go(tokens, tmp_path, tiny_config(checkpoint={"every": 600, "asynchronous": False}))
    same_run(whole, tmp_path)
    for folder in (whole / "CAP" / "checkpoints").iterdir():
        ours, theirs = (
            read_json(out / "CAP" / "checkpoints" / folder.name / "state.json") for out in (whole, tmp_path)
        )
        assert ours["files"]["__0_0.distcp"] == theirs["files"]["__0_0.distcp"] and ours["batches"] == theirs["batches"]
        assert ours["step"] == theirs["step"] and ours["tokens_by_domain"] == theirs["tokens_by_domain"]


def test_a_row_says_how_long_the_save_before_it_held_training_up(whole):
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "checkpoint_seconds" in row] == [6, 11, 15, 18, 21]


def test_checkpoints_are_kept_for_good_at_intervals_of_the_run(tokens, tmp_path):
    go(tokens, tmp_path, tiny_config(checkpoint={"every": 200, "keep": 1, "keep_every": 1000}))
    kept = {phase: [path.name for path in list_checkpoints(tmp_path / phase)] for phase in ("base", "CAP")}
    # 128 tokens a step up to 1536, then 192.
    assert kept == {
        "base": ["step-00000008", "step-00000012"],
        "CAP": ["step-00000015", "step-00000020", "step-00000022"],
    }
