"""Job scripts that bash reads, that keep any path whole, and that go back into the queue."""

import os
import signal
import socket
import subprocess
import time
from contextlib import suppress

import pytest
from tests.small_run import aurora, make_project, start, write_documents

from aurora_m.training.interrupt import EXIT_STOPPED_BY_SCHEDULER, stop_requests
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


STOPPED = EXIT_STOPPED_BY_SCHEDULER


def stand_ins(folder, **tools):
    """A folder of programs in the place of Slurm's, and an environment that finds them first."""
    folder.mkdir()
    for name, body in tools.items():
        (folder / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / name).chmod(0o755)
    job = {"SLURM_JOB_ID": "77", "SLURM_JOB_NODELIST": "host"}
    return os.environ | job | {"PATH": f"{folder}:{os.environ['PATH']}"}


SCONTROL = '[ "$1" = requeue ] && echo "$2" >> requeued; echo 127.0.0.1'


@pytest.mark.parametrize(
    ("warned", "code", "requeued"),
    [
        (signal.SIGUSR1, STOPPED, True),
        (signal.SIGTERM, STOPPED, True),
        (None, STOPPED, True),  # the tasks alone were told
        (None, 0, False),
        (signal.SIGUSR1, 0, False),  # it was through just then
        (signal.SIGUSR1, 3, False),
        (signal.SIGTERM, 1, False),
        (None, 137, False),
    ],
)
def test_slurm_requeues_for_the_exit_code_of_a_stop_and_no_other(tmp_path, warned, code, requeued):
    """srun is a stand-in that ends with that code, once it has been told to stop where the job was."""
    body = f"trap 'exit {code}' USR1; echo > ready; while :; do sleep 0.05; done" if warned else f"exit {code}"
    environment = stand_ins(tmp_path / "bin", srun=body, scontrol=SCONTROL)
    process = subprocess.Popen(["bash", "-c", slurm_script(job(tmp_path))], cwd=tmp_path, env=environment)
    if warned:
        wait_for(lambda: (tmp_path / "ready").exists(), process)
        process.send_signal(warned)
    process.wait(timeout=30)
    assert process.returncode == (0 if requeued else code)
    assert (tmp_path / "requeued").exists() == requeued


def wait_for(condition, process, seconds=120):
    ends = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "it ended before its time"
        assert time.monotonic() < ends, "it takes too long"
        time.sleep(0.02)


# Runs the tasks of a job on this machine, and hands signals on to them, as srun does.
SRUN = """
shift
trap 'kill -USR1 $tasks' USR1
tasks=
for number in 0 1; do
  SLURM_PROCID=$number SLURM_LOCALID=$number SLURM_NTASKS=2 "$@" &
  tasks="$tasks $!"
done
highest=0
for task in $tasks; do
  while :; do wait $task; code=$?; kill -0 $task 2>/dev/null || break; done
  wait $task; code=$?
  [ $code -gt $highest ] && highest=$code
done
exit $highest
"""


def test_a_slurm_job_is_warned_saves_goes_back_into_the_queue_and_goes_on(tmp_path):
    make_project(tmp_path)
    changes = ["--set", "align.enabled=false", "--set", "train.phases.base.tokens=100K"]
    done = aurora("launch", "small.yaml", "--slurm", "--devices-per-node", "2", "--write-only", *changes, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    script, metrics = tmp_path / "runs/small/launch/slurm.sh", tmp_path / "runs/small/train/metrics.jsonl"
    port = {"MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment = stand_ins(tmp_path / "bin", srun=SRUN, scontrol=SCONTROL) | port

    def start():
        return subprocess.Popen(
            ["bash", script], cwd=tmp_path, env=environment, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    process = start()
    try:
        wait_for(lambda: metrics.exists() and metrics.read_text().count('"step"') > 4, process)
        process.send_signal(signal.SIGUSR1)
        out, _ = process.communicate(timeout=120)
        assert "SIGUSR1: finishing this step" in out, out
        assert "back into the queue" in out, out
        assert process.returncode == 0
        assert (tmp_path / "requeued").read_text() == "77\n"
        process = start()
        assert process.stdout is not None
        assert any("resuming after step" in line for line in process.stdout)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_launch_under_torchrun_runs_on_two_processes(tmp_path):
    make_project(tmp_path)
    done = aurora(
        "launch", "small.yaml", "--torchrun", "--devices-per-node", "2", "--set", "align.enabled=false", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/small/report/index.html").exists()
    (checkpoint, *_) = sorted((tmp_path / "runs/small/train/CAP/checkpoints").iterdir())
    assert len(list(checkpoint.rglob("*.distcp"))) == 2  # one of each rank


@pytest.mark.parametrize(
    ("rank", "code", "said"), [("0", STOPPED, "stopped by SIGTERM; nothing is half-"), ("1", 0, "")]
)
def test_stages_that_do_not_listen_end_in_order_and_the_main_process_alone_asks_for_a_requeue(
    tmp_path, monkeypatch, rank, code, said
):
    """Ranks are sent SIGTERM when another one failed, too: were their code 75, a failure would be taken for a stop."""
    monkeypatch.setenv("RANK", rank)
    make_project(tmp_path)
    write_documents(tmp_path / "notes.jsonl", count=60_000)
    process = start("curate", "small.yaml", cwd=tmp_path)
    wait_for(lambda: (tmp_path / "runs/small").exists(), process)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert said in out
    assert "Traceback" not in err


def test_signals_of_the_scheduler_do_not_pile_up():
    with stop_requests() as stop:
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR1):
            signal.raise_signal(number)
        assert (stop.asked, stop.exit_code) == (True, STOPPED)
    with stop_requests() as stop:
        signal.raise_signal(signal.SIGINT)
        assert (stop.asked, stop.exit_code) == (True, 0)


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


@pytest.mark.parametrize("there", [True, False])
def test_launch_submits_where_slurm_is_and_says_so_where_it_is_not(tmp_path, monkeypatch, there):
    make_project(tmp_path)
    environment = stand_ins(tmp_path / "bin", **({"sbatch": 'echo "Submitted $#: $1"'} if there else {}))
    monkeypatch.setenv("PATH", environment["PATH"] if there else str(tmp_path / "bin"))
    done = aurora("launch", "small.yaml", "--slurm", "--nodes", "2", "--account", "project_1", cwd=tmp_path)
    script = tmp_path / "runs/small/launch/slurm.sh"
    assert done.returncode == 0, done.stderr
    assert "#SBATCH --account=project_1\n" in script.read_text()
    expected = (
        f"Submitted 1: {script}"
        if there
        else f"not submitted: there is no sbatch here; where Slurm is, give `sbatch {script}`"
    )
    assert expected in done.stdout


def test_a_job_that_slurm_refuses_is_an_error_with_its_words(tmp_path, monkeypatch):
    make_project(tmp_path)
    environment = stand_ins(tmp_path / "bin", sbatch='echo "invalid partition" >&2; exit 1')
    monkeypatch.setenv("PATH", environment["PATH"])
    done = aurora("launch", "small.yaml", "--slurm", cwd=tmp_path)
    assert done.returncode == 1
    assert "ended with exit code 1: invalid partition" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "launch: give one of --slurm and --torchrun"),
        (["--slurm", "--torchrun"], "launch: give one of --slurm and --torchrun"),
        (["--slurm", "--nodes", "0"], "--nodes 0: expected 1 or more"),
        (["--slurm", "--devices-per-node", "3"], "8 sequences per step cannot be dealt to 3 data ranks"),
        (["--slurm", "--devices-per-node", "8", "--set", "train.parallel.tensor=3"], "do not make 8 ranks"),
    ],
)
def test_jobs_that_cannot_be_are_refused_before_they_wait(tmp_path, arguments, message):
    make_project(tmp_path)
    done = aurora("launch", "small.yaml", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "runs").exists()
