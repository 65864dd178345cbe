"""TensorBoard and W&B show what metrics.jsonl says, each point once, and never stop a run."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import REPOSITORY
from tests.heard import Heard
from tests.training.synthetic import tiny_base, tiny_config, write_tokens

from aurora_m.pipeline import run
from aurora_m.recipe import Recipe
from aurora_m.training import TelemetryConfig, check_trackers, trackers
from aurora_m.training.stage import train
from aurora_m.training.state import TrainingState
from aurora_m.workspace import Progress, RecipeError

event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


@pytest.fixture(scope="module")
def tokens(tmp_path_factory) -> Path:
    return write_tokens(tmp_path_factory.mktemp("tokens") / "tokens")


def go(tokens: Path, out: Path, telemetry: dict, progress: Progress | None = None, **changes) -> dict:
    config = tiny_config(telemetry=telemetry, **changes)
    return train(config, tiny_base(), tokens, out, seed=1, base_folder=None, progress=progress or Heard())


def rows(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def events(out: Path) -> dict[str, list[tuple[int, float]]]:
    accumulator = event_accumulator.EventAccumulator(str(out / "tensorboard"), {"scalars": 0})
    accumulator.Reload()
    return {tag: [(e.step, e.value) for e in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]}


def same_as_metrics(out: Path) -> None:
    found, steps = events(out), [row for row in rows(out) if row["kind"] == "step"]
    for name in ("loss", "lr", "grad_norm", "step"):
        assert found[name] == [(row["tokens"], pytest.approx(row[name], rel=1e-6)) for row in steps], name
    for domain in ("aa", "bb", "cc"):
        expected = [(r["tokens"], r["loss_by_domain"][domain]) for r in steps if domain in r["loss_by_domain"]]
        assert found[f"loss/{domain}"] == [(tokens, pytest.approx(loss, rel=1e-6)) for tokens, loss in expected]
        assert [tokens for tokens, _ in found[f"bpb/{domain}"]] == [0, 1024, 1536, 2112, 3072, 3456]
        assert [tokens for tokens, _ in found[f"bpb_change/{domain}"]] == [1536, 2112, 3072, 3456]
    assert {"tokens_per_second", "data_wait", "skipped_steps", "checkpoint_seconds"} <= found.keys()


def killed_after(step: int, monkeypatch):
    """The process ends in the middle of a step, without a checkpoint of it."""
    count = TrainingState.count

    def stop(self, *arguments):
        count(self, *arguments)
        if self.step == step:
            raise KeyboardInterrupt

    context = monkeypatch.context()
    context.__enter__().setattr(TrainingState, "count", stop)
    return context


def interrupted(tokens: Path, out: Path, telemetry: dict, steps: list[int], monkeypatch) -> None:
    for step in steps:
        context = killed_after(step, monkeypatch)
        with pytest.raises(KeyboardInterrupt):
            go(tokens, out, telemetry)
        context.__exit__(None, None, None)
    go(tokens, out, telemetry)


def test_event_files_say_what_the_metrics_say_also_after_resumes(tokens, tmp_path, monkeypatch):
    go(tokens, tmp_path / "whole", {"tensorboard": True})
    same_as_metrics(tmp_path / "whole")
    interrupted(tokens, tmp_path / "out", {"tensorboard": True}, [9, 7, 17], monkeypatch)
    same_as_metrics(tmp_path / "out")
    # Turned on only when all was done, and with a phase that has changed.
    go(tokens, tmp_path / "later", {})
    assert not (tmp_path / "later" / "tensorboard").exists()
    go(tokens, tmp_path / "later", {"tensorboard": True})
    same_as_metrics(tmp_path / "later")
    assert not list(tmp_path.rglob("wandb*"))


def test_after_a_way_back_the_steps_that_were_undone_are_gone(tokens, tmp_path, monkeypatch):
    from aurora_m.training import trainer

    accumulate, calls = trainer.accumulate_gradients, []

    def break_four(model, *rest):
        nll = accumulate(model, *rest)
        calls.append(1)
        return nll * float("nan") if 15 <= len(calls) < 19 else nll

    monkeypatch.setattr(trainer, "accumulate_gradients", break_four)
    go(tokens, tmp_path, {"tensorboard": True}, checkpoint={"every": 384, "keep": 3})
    assert [row["kind"] for row in rows(tmp_path)].count("went back") == 1
    found = events(tmp_path)
    assert [value for _, value in found["step"]] == list(range(1, 23))
    assert {value for _, value in found["skipped_steps"]} == {0}


# ---- W&B


def records(content: bytes) -> Iterator[bytes]:
    """The records of a file in LevelDB's log format: blocks of 32 KiB, of pieces with checksum, length and kind."""
    place, record = 7, b""  # after the file's own header
    while place + 7 <= len(content):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", content, place + 4)
        record += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield record
            record = b""


def sent(out: Path) -> list[tuple[str, dict[int, dict]]]:
    """What every offline run folder holds, by step, oldest first: (run id, figures by step)."""
    from wandb.proto import wandb_internal_pb2

    found = []
    for path in sorted(out.glob("wandb/offline-run-*/*.wandb")):
        steps: dict[int, dict] = {}
        for data in records(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") == "history":
                items = {
                    item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item
                }
                assert items["_step"] not in steps
                steps[items["_step"]] = items
        found.append((path.stem, steps))
    return found


@pytest.fixture
def offline(monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    return {"wandb": {"project": "aurora-m-tests", "mode": "offline"}}


def test_a_run_is_told_to_wandb_once_and_a_resumed_one_goes_on_under_its_id(tokens, tmp_path, monkeypatch, offline):
    interrupted(tokens, tmp_path, offline, [9], monkeypatch)
    parts = sent(tmp_path)
    assert len(parts) == 2 and len({name for name, _ in parts}) == 1
    assert not set(parts[0][1]) & set(parts[1][1])
    together = parts[0][1] | parts[1][1]
    assert sorted(together) == list(range(23))
    for row in rows(tmp_path):
        figures = together[row["step"]]
        assert (figures["loss"], figures["tokens"], figures["lr"]) == (row["loss"], row["tokens"], row["lr"])
        by_domain = {key.removeprefix("loss/"): value for key, value in figures.items() if key.startswith("loss/")}
        assert by_domain == row["loss_by_domain"]
    assert {"bpb/cc", "bpb_change/cc"} <= together[12].keys() and "bpb/cc" in together[0]


def test_what_another_recipe_trains_is_another_run_there(tokens, tmp_path, offline):
    go(tokens, tmp_path, offline)
    go(tokens, tmp_path, offline, ledger={"every": 500})  # no other training, so the same run
    first = {name for name, _ in sent(tmp_path)}
    assert len(first) == 1
    changed = tiny_config().phases[1].model_dump(exclude_unset=True) | {"tokens": 4 * 192}
    go(tokens, tmp_path, offline, phases=[tiny_config().phases[0].model_dump(exclude_unset=True), changed])
    (new,) = [steps for name, steps in sent(tmp_path) if name not in first]
    assert sorted(new) == list(range(17))


# ---- trouble


class Broken:
    def __init__(self, *arguments) -> None:
        self.calls = 0

    def log(self, *arguments) -> None:
        self.calls += 1
        if self.calls == 5:
            raise OSError(28, "No space left on device")

    def close(self) -> None:
        raise AssertionError("it was left out before")


def test_trouble_costs_one_warning_and_no_training(tokens, tmp_path, monkeypatch):
    def refuse(*arguments):
        raise RuntimeError("api.wandb.ai\ncannot be reached")

    monkeypatch.setattr(trackers, "TensorBoard", Broken)
    monkeypatch.setattr(trackers, "Wandb", refuse)
    heard = Heard()
    go(tokens, tmp_path, {"tensorboard": True, "wandb": {"project": "x"}}, heard)
    assert len(rows(tmp_path)) == 22
    assert [line for line in heard.lines if "left out" in line] == [
        "warning: wandb is left out from here on (api.wandb.ai cannot be reached); metrics.jsonl goes on",
        "warning: tensorboard is left out from here on ([Errno 28] No space left on device); metrics.jsonl goes on",
    ]


def test_what_is_not_installed_is_said_before_anything_starts(tokens, tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    check_trackers(TelemetryConfig())
    for telemetry in ({"tensorboard": True}, {"wandb": {"project": "x"}}):
        (name,) = telemetry
        with pytest.raises(RecipeError, match=rf"telemetry\.{name} needs .*pip install 'aurora-m\[telemetry\]'"):
            go(tokens, tmp_path / "out", telemetry)
    assert not (tmp_path / "out").exists()
    recipe = Recipe.load(REPOSITORY / "recipes" / "quickstart.yaml", ["train.telemetry.tensorboard=true"])
    with pytest.raises(RecipeError, match=r"pip install 'aurora-m\[telemetry\]'"):
        run(recipe, runs=tmp_path / "runs", dry_run=True)
    run(recipe, runs=tmp_path / "runs", dry_run=True, only="release")
