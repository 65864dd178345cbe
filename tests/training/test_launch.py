"""Job scripts that bash reads, that keep any path whole, and that go back into the queue."""

import signal
import subprocess

import pytest
from typer.testing import CliRunner

from aurora_m.cli import app
from aurora_m.training.interrupt import stop_requests
from aurora_m.training.launch import Job, slurm_script, torchrun_script, write_script
from aurora_m.workspace import RecipeError

AWKWARD = 'it\'s a $HOME; `x` "dir"'


def job(tmp_path, **changes):
    folder = tmp_path / AWKWARD
    return Job(**{"name": "a run", "recipe": folder / "r.yaml", "runs": folder, "folder": folder, **changes})


@pytest.mark.parametrize("kind", ["slurm", "torchrun"])
@pytest.mark.parametrize("nodes", [1, 4])
def test_scripts_are_valid_bash(tmp_path, kind, nodes):
    path = write_script(job(tmp_path, nodes=nodes, devices_per_node=8), kind)
    subprocess.run(["bash", "-n", path], check=True)
    assert path.stat().st_mode & 0o100


def test_torchrun_gets_every_word_whole(tmp_path):
    shown = job(tmp_path, python="printf", arguments=("--set", f"paths.data={AWKWARD}"))
    script = torchrun_script(shown).replace("exec printf", "exec printf '%s\\n'")
    words = subprocess.run(["bash", "-c", script], check=True, capture_output=True, text=True).stdout.splitlines()
    start = ["-m", "torch.distributed.run", "--nproc-per-node=1", "--standalone", "-m", "aurora_m", "run"]
    assert words == [*start, str(shown.recipe), "--runs", str(shown.runs), "--set", f"paths.data={AWKWARD}"]


@pytest.mark.parametrize(("warned", "code", "requeued"), [(True, 0, True), (False, 0, False), (True, 3, False)])
def test_slurm_requeues_after_a_warning_only(tmp_path, warned, code, requeued):
    """With stand-ins for Slurm's commands: srun waits for the signal that scancel hands on."""
    tools = tmp_path / "bin"
    tools.mkdir()
    waits = "trap 'kill $!' USR1; echo $$ > pid; sleep 20 & wait" if warned else ":"
    tool = {
        "srun": f"{waits}\nexit {code}",
        "scancel": 'echo "$@" > cancelled; kill -USR1 $(cat pid)',
        "scontrol": '[ "$1" = requeue ] && echo "$2" > requeued; echo host',
    }
    for name, body in tool.items():
        (tools / name).write_text(f"#!/bin/bash\n{body}\n")
        (tools / name).chmod(0o755)
    script = slurm_script(job(tmp_path))
    environment = {"PATH": f"{tools}:/usr/bin:/bin", "SLURM_JOB_ID": "77", "SLURM_JOB_NODELIST": "host"}
    process = subprocess.Popen(["bash", "-c", script], cwd=tmp_path, env=environment)
    if warned:
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            assert process.poll() is None
        process.send_signal(signal.SIGUSR1)
    process.wait(timeout=15)
    assert (tmp_path / "requeued").exists() == requeued
    assert process.returncode == (0 if requeued else code)
    if warned:
        assert (tmp_path / "cancelled").read_text().strip() == "--signal=USR1 77.0"


def test_slurm_script_asks_for_what_was_said(tmp_path):
    script = slurm_script(job(tmp_path, nodes=4, devices_per_node=8, account="project_1", setup=("module load x",)))
    for line in ("--nodes=4", "--ntasks-per-node=8", "--account=project_1", "--signal=B:USR1@300", "--requeue"):
        assert f"#SBATCH {line}\n" in script
    assert "\nmodule load x\n" in script


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nodes": 0}, "--nodes 0: expected 1 or more"),
        ({"time_limit": "soon"}, "--time 'soon'"),
        ({"partition": "a b\n#SBATCH --x"}, "--partition"),
    ],
)
def test_values_that_would_break_a_script_are_refused(tmp_path, changes, message):
    with pytest.raises(RecipeError, match=message):
        job(tmp_path, **changes)


def test_sigusr1_asks_for_a_stop_as_sigterm_does():
    with stop_requests() as stop:
        signal.raise_signal(signal.SIGUSR1)
        assert stop.asked


def test_launch_writes_the_script_of_a_recipe(tmp_path):
    done = CliRunner().invoke(
        app, ["launch", "recipes/quickstart.yaml", "--slurm", "--nodes", "2", "--runs", str(tmp_path)]
    )
    assert done.exit_code == 0, done.output
    assert (tmp_path / "quickstart" / "launch" / "slurm.sh").is_file()
