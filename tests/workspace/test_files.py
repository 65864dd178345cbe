"""Files are old or new, never half."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from aurora_m.workspace import (
    AuroraError,
    atomic_folder,
    atomic_path,
    fingerprint,
    fingerprint_folder,
    lock_run,
    read_json,
    recover_folder,
    write_json,
)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"old": 1})
    with pytest.raises(ValueError):
        write_json(path, {"not a number": float("nan")})
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert read_json(path) == {"old": 1}
    assert os.listdir(tmp_path) == ["value.json"]


def test_a_failed_folder_leaves_the_old_folder(tmp_path):
    folder = tmp_path / "stage"
    with atomic_folder(folder) as out:
        (out / "a").write_text("old")
    with pytest.raises(RuntimeError), atomic_folder(folder) as out:
        (out / "a").write_text("half")
        raise RuntimeError
    assert (folder / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["stage"]


def test_a_folder_is_replaced_whole(tmp_path):
    folder = tmp_path / "stage"
    for name in ("first", "second"):
        with atomic_folder(folder) as out:
            (out / name).write_text(name)
    assert os.listdir(folder) == ["second"]


def test_killed_between_the_two_renames_the_old_folder_comes_back(tmp_path):
    (tmp_path / ".stage.replaced").mkdir()
    (tmp_path / ".stage.replaced" / "a").write_text("old")
    (tmp_path / ".stage.incomplete").mkdir()
    recover_folder(tmp_path / "stage")
    assert (tmp_path / "stage" / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["stage"]


def test_killed_while_writing_nothing_is_taken_for_a_result(tmp_path):
    script = textwrap.dedent(
        """
        import sys, time; from pathlib import Path; from aurora_m.workspace import atomic_folder
        with atomic_folder(Path(sys.argv[1]) / "stage") as out:
            (out / "half").write_text("half"); print("writing", flush=True); time.sleep(60)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "stage").exists()
    with atomic_folder(tmp_path / "stage") as out:
        (out / "whole").write_text("whole")
    assert os.listdir(tmp_path / "stage") == ["whole"]


def test_damaged_json_names_the_file_and_the_way_out(tmp_path):
    (tmp_path / "tokens.json").write_text('{"half": ')
    with pytest.raises(AuroraError, match=r"tokens\.json is not valid JSON.*delete it"):
        read_json(tmp_path / "tokens.json")


def test_the_second_process_on_a_run_folder_is_refused_by_name(tmp_path):
    script = "import sys, time; from pathlib import Path; from aurora_m.workspace import lock_run\n"
    script += "with lock_run(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline()
        with pytest.raises(AuroraError, match=f"in use by process {process.pid}"), lock_run(tmp_path):
            pass
    finally:
        process.kill()
        process.wait()
    with lock_run(tmp_path):  # the lock went with the killed process
        pass


def test_fingerprints_follow_content_not_order_or_time(tmp_path):
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    (tmp_path / "x").write_text("1")
    before = fingerprint_folder(tmp_path)
    os.utime(tmp_path / "x", (0, 0))
    assert fingerprint_folder(tmp_path) == before
    (tmp_path / "x").write_text("2")
    assert fingerprint_folder(tmp_path) != before
