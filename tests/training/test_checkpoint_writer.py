"""A checkpoint written beside the loop is the moment of its save, is there whole or not at all, and fails aloud."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from tests.conftest import REPOSITORY
from tests.training.synthetic import write_tokens

from aurora_m.training import checkpoint, checkpoint_writer
from aurora_m.training.checkpoint import load_checkpoint
from aurora_m.training.checkpoint_writer import CheckpointWriter
from aurora_m.workspace import AuroraError

DONE: list[str] = []


def nothing() -> None:
    pass


def live() -> dict[str, torch.Tensor]:
    return {"a": torch.arange(6.0).reshape(2, 3), "part": torch.arange(10.0)[2:5], "step": torch.tensor(1.0)}


@pytest.fixture
def gate(monkeypatch):
    """Nothing is written before the gate is opened."""
    opened, save = threading.Event(), checkpoint_writer.save_checkpoint

    def waiting(*arguments):
        assert opened.wait(20)
        save(*arguments)

    monkeypatch.setattr(checkpoint_writer, "save_checkpoint", waiting)
    return opened


def test_what_is_written_is_the_moment_of_the_save(tmp_path, gate):
    tensors, record, done = live(), {"rows": [1], "place": {"cursor": 5}}, []
    with CheckpointWriter(asynchronous=True) as writer:
        writer.save(tmp_path / "step-1", tensors, record, lambda: done.append(1), wait=False)
        for tensor in tensors.values():
            tensor.mul_(-1)
        record["rows"].append(2)
        record["place"]["cursor"] = 6
        writer.check()
        assert not (tmp_path / "step-1").exists() and not done
        gate.set()
    assert done == [1]
    loaded, fresh = {name: torch.zeros_like(tensor) for name, tensor in live().items()}, live()
    assert load_checkpoint(tmp_path / "step-1", loaded)["rows"] == [1]
    assert all(torch.equal(loaded[name], tensor) for name, tensor in fresh.items())


def test_the_next_save_waits_for_the_one_before(tmp_path, gate):
    with CheckpointWriter(asynchronous=True) as writer:
        writer.save(tmp_path / "step-1", live(), {}, nothing, wait=False)
        before = writer.seconds
        threading.Timer(0.2, gate.set).start()
        writer.save(tmp_path / "step-2", live(), {}, lambda: DONE.append("second"), wait=False)
        assert (tmp_path / "step-1").exists() and writer.seconds - before > 0.15
        writer.wait()
        assert (tmp_path / "step-2").exists() and DONE.pop() == "second"


@pytest.mark.parametrize("asynchronous", [False, True])
def test_with_wait_it_is_there_on_return(tmp_path, asynchronous):
    with CheckpointWriter(asynchronous=asynchronous) as writer:
        writer.save(tmp_path / "step-1", live(), {"step": 1}, nothing, wait=True)
        assert load_checkpoint(tmp_path / "step-1", live())["step"] == 1


def full(monkeypatch) -> None:
    def fail(*arguments, **settings):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_tensors", fail)


@pytest.mark.parametrize("then", ["check", "wait", "save", "exit"])
def test_an_error_is_raised_by_the_next_call_and_nothing_is_left(tmp_path, monkeypatch, then):
    full(monkeypatch)
    with (
        pytest.raises(AuroraError, match="step-1 could not be written: .*No space left on device"),
        CheckpointWriter(asynchronous=True) as writer,
    ):
        writer.save(tmp_path / "step-1", live(), {}, nothing, wait=False)
        if then == "check":
            for _ in range(1000):
                writer.check()
                time.sleep(0.01)
        elif then == "wait":
            writer.wait()
        elif then == "save":
            writer.save(tmp_path / "step-2", live(), {}, nothing, wait=True)
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_training_is_not_hidden_by_one_of_writing(tmp_path, monkeypatch):
    full(monkeypatch)
    with pytest.raises(AuroraError, match="bad steps"), CheckpointWriter(asynchronous=True) as writer:
        writer.save(tmp_path / "step-1", live(), {}, nothing, wait=False)
        raise AuroraError("bad steps")


# ---- several ranks

PROGRAM = """
import os, shutil, sys, time
from pathlib import Path
from tests.training.parallel_job import start
from tests.training.test_parallel import a_run
from aurora_m.training import checkpoint, checkpoint_writer

tokens, out = map(Path, sys.argv[1:])
fingerprint, save = checkpoint.fingerprint_file, checkpoint_writer.save_checkpoint

def fail(path):
    if os.environ["RANK"] == "1" and path.name == "__1_0.distcp" and "step-00000002" in str(path):
        time.sleep(0.3)  # while the other rank trains on
        raise OSError(5, "Input/output error")
    return fingerprint(path)

def slow(*arguments):
    time.sleep(0.5)
    save(*arguments)

def job(name, asynchronous, **changes):
    run = a_run(out / name, tokens, "gpt_bigcode", {"tensor": 2}, **changes)
    run["config"]["checkpoint"] = {"every": 128, "keep": 9, "asynchronous": asynchronous}
    (out / name).mkdir(exist_ok=True)
    children = start({"processes": 2, "runs": [run]})
    print(name, [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children], flush=True)

job("sync", False)
job("async", True)
checkpoint.fingerprint_file = fail
job("broken", True)
checkpoint.fingerprint_file = fingerprint
checkpoint_writer.save_checkpoint = slow
job("died", True, die=[1, 4])
checkpoint_writer.save_checkpoint = save
job("died", True)
"""


def test_ranks_write_together_beside_the_loop_and_fail_together(tmp_path):
    tokens = write_tokens(tmp_path / "tokens")
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(tokens), str(tmp_path)]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=200, check=False)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines == ["sync [0, 0]", "async [0, 0]", "broken [1, 1]", "died [1, -9]", "died [0, 0]"], result.stderr
    model = "CAP/model/model.safetensors"
    expected = (tmp_path / "sync" / model).read_bytes()
    for name in ("async", "died"):
        assert (tmp_path / name / model).read_bytes() == expected, name
        assert sorted(path.name for path in (tmp_path / name).glob("CAP/checkpoints/*")) == [
            f"step-{step:08}" for step in (4, 5, 6)
        ]
    for rank in (0, 1):
        message = (tmp_path / "broken" / f"error-{rank}.txt").read_text()
        assert message.startswith("AuroraError: checkpoint") and message.endswith("[Errno 5] Input/output error")
    assert [path.name for path in Path(tmp_path / "broken").glob("base/checkpoints/*")] == ["step-00000001"]
