"""Job scripts: the same run under torchrun on machines at hand, or under Slurm, which starts it again when it stops it.

Slurm sends SIGUSR1 some minutes before the end of a job's time, and SIGTERM when it takes machines away. Training
finishes its step, writes a checkpoint and ends (`interrupt.py`); the script puts the job back into the queue then.
"""

import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from aurora_m.workspace import AuroraError, RecipeError, write_text

_TIME = re.compile(r"(\d+-)?\d{1,2}(:\d{2}){1,2}")
# Slurm reads a directive to the end of the line, without a shell's quotes around it.
_PLAIN = re.compile(r"[A-Za-z0-9._:,@=+/%-]+")


@dataclass(frozen=True)
class Job:
    """What a job script needs to know. Paths are absolute; `arguments` go to `aurora-m run` behind the recipe."""

    name: str
    recipe: Path
    runs: Path
    folder: Path  # of the script and the logs
    nodes: int = 1
    devices_per_node: int = 1
    arguments: tuple[str, ...] = ()
    python: str = sys.executable
    time_limit: str = "24:00:00"
    warning_minutes: int = 5
    partition: str | None = None
    account: str | None = None
    cores_per_device: int | None = None
    setup: tuple[str, ...] = ()  # lines of shell before the start: modules, containers, variables

    def __post_init__(self) -> None:
        for name in ("nodes", "devices_per_node", "warning_minutes"):
            if getattr(self, name) < 1:
                raise RecipeError(f"--{name.replace('_', '-')} {getattr(self, name)}: expected 1 or more")
        if not _TIME.fullmatch(self.time_limit):
            raise RecipeError(f"--time {self.time_limit!r}: expected Slurm's form, such as 24:00:00 or 2-00:00:00")
        for name in ("partition", "account"):
            value = getattr(self, name)
            if value is not None and not _PLAIN.fullmatch(value):
                raise RecipeError(f"--{name} {value!r}: expected letters, digits and ._:,@=+/%- only")


def _torchrun(job: Job) -> list[str]:
    """The words of the command on one machine; the shell's own variables are added by the scripts."""
    return [job.python, "-m", "torch.distributed.run", f"--nproc-per-node={job.devices_per_node}"]


def _training(job: Job) -> str:
    words = ["-m", "aurora_m", "run", str(job.recipe), "--runs", str(job.runs), *job.arguments]
    return shlex.join(words)


def torchrun_script(job: Job) -> str:
    """A script that starts the run on this machine or, with NODE_RANK and MASTER_ADDR set on each, on several.

    Started again, it goes on where the run stood.
    """
    if job.nodes == 1:
        start = f"exec {shlex.join(_torchrun(job))} --standalone {_training(job)}"
    else:
        start = (
            f"exec {shlex.join(_torchrun(job))} --nnodes={job.nodes} "
            '--node-rank="${NODE_RANK:?the number of this machine, from 0}" '
            '--master-addr="${MASTER_ADDR:?the name of machine 0}" --master-port="${MASTER_PORT:-29500}" \\\n'
            f"  {_training(job)}"
        )
    return "\n".join(
        ["#!/usr/bin/env bash", f"# {_comment(job)}", "set -euo pipefail", *job.setup, *_threads(job), start, ""]
    )


def slurm_script(job: Job) -> str:
    """A script for sbatch: a task for each device, a warning before the end, and back into the queue after a stop.

    Tasks are started without torchrun, which would end at the warning instead of handing it on.
    """
    directives = {
        "job-name": re.sub(r"[^A-Za-z0-9._-]", "-", job.name),
        "nodes": job.nodes,
        "ntasks-per-node": job.devices_per_node,
        "gpus-per-node": job.devices_per_node,
        "time": job.time_limit,
        "signal": f"B:USR1@{60 * job.warning_minutes}",
        "output": "slurm-%j.log",
        "open-mode": "append",
        "partition": job.partition,
        "account": job.account,
        "cpus-per-task": job.cores_per_device,
    }
    task = (
        'export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS; exec "$0" "$@"'  # to bash -c
    )
    return "\n".join(
        [
            "#!/usr/bin/env bash",
            *(f"#SBATCH --{name}={value}" for name, value in directives.items() if value is not None),
            "#SBATCH --requeue",
            f"# {_comment(job)}",
            "set -uo pipefail",
            *job.setup,
            *_threads(job),
            'MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
            "export MASTER_ADDR MASTER_PORT=${MASTER_PORT:-29500}",
            f"srun --kill-on-bad-exit=1 bash -c {shlex.quote(task)} {shlex.quote(job.python)} \\",
            f"  {_training(job)} &",
            "step=$! stopped=",
            "# The warning reaches this shell alone and is handed on; SIGTERM reaches the tasks by itself, and a second",
            "# signal would stop them before they have saved.",
            "trap 'stopped=1; scancel --signal=USR1 \"$SLURM_JOB_ID.0\"' USR1",
            "trap 'stopped=1' TERM",
            'wait "$step"; code=$?',
            "# A signal ends `wait` before the tasks have ended.",
            'while kill -0 "$step" 2>/dev/null; do wait "$step"; code=$?; done',
            'if [ -n "$stopped" ] && [ "$code" -eq 0 ]; then',
            '  echo "stopped with a checkpoint written; back into the queue"',
            '  exec scontrol requeue "$SLURM_JOB_ID"',
            "fi",
            'exit "$code"',
            "",
        ]
    )


def _comment(job: Job) -> str:
    return f"Run {re.sub(r'[^ -~]', '?', job.name)} on {job.nodes} x {job.devices_per_node} devices; by aurora-m launch."


def _threads(job: Job) -> list[str]:
    return [f"export OMP_NUM_THREADS={job.cores_per_device or 8}"]


def write_script(job: Job, kind: Literal["slurm", "torchrun"]) -> Path:
    """Writes `<folder>/<kind>.sh`, which can be run as it is, and returns its path."""
    path = job.folder / f"{kind}.sh"
    write_text(path, slurm_script(job) if kind == "slurm" else torchrun_script(job))
    path.chmod(0o755)
    return path


def start_script(script: Path, kind: Literal["slurm", "torchrun"]) -> None:
    """Submits a script with sbatch, or runs it here; returns when it is queued or has ended.

    Raises:
        AuroraError: there is no sbatch here, or the script failed.
    """
    if kind == "slurm" and shutil.which("sbatch") is None:
        raise AuroraError(f"there is no sbatch here; {script} is written: submit it where Slurm is")
    command = ["sbatch", str(script)] if kind == "slurm" else ["bash", str(script)]
    code = subprocess.run(command, cwd=script.parent, check=False).returncode
    if code:
        raise AuroraError(f"{shlex.join(command)} ended with exit code {code}; its own message is above")
