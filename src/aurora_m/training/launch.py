"""Job scripts: the same run under torchrun on machines at hand, or under Slurm, which starts it again when it stops it.

Slurm sends SIGUSR1 some minutes before the end of a job's time, and SIGTERM when it takes machines away. Training
finishes its step, writes a checkpoint and ends with exit code 75 (`interrupt.py`); for that code, and no other, the
script puts the job back into the queue.
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

from .config import TrainConfig
from .interrupt import EXIT_STOPPED_BY_SCHEDULER

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

    @property
    def devices(self) -> int:
        return self.nodes * self.devices_per_node

    def __post_init__(self) -> None:
        for name in ("nodes", "devices_per_node", "warning_minutes", "cores_per_device"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise RecipeError(f"--{name.replace('_', '-')} {value}: expected 1 or more")
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
        ["#!/usr/bin/env bash", f"# {_comment(job)}", "set -euo pipefail", *job.setup, _threads(job), start, ""]
    )


def slurm_script(job: Job) -> str:
    """A script for sbatch: a task for each device, a warning before the end, back into the queue after a stop.

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
    # From Slurm 22.05 on srun no longer takes it from the job.
    cores = f" --cpus-per-task={job.cores_per_device}" if job.cores_per_device else ""
    # To bash -c. Tasks are the training processes themselves (exec), so that signals reach them.
    task = 'export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS; exec "$0" "$@"'
    return "\n".join(
        [
            "#!/usr/bin/env bash",
            *(f"#SBATCH --{name}={value}" for name, value in directives.items() if value is not None),
            "#SBATCH --requeue",
            f"# {_comment(job)}",
            "set -uo pipefail",
            *job.setup,
            _threads(job),
            'MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
            "# Jobs that share a machine need ports of their own.",
            "export MASTER_ADDR MASTER_PORT=${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 10000))}",
            "",
            "# srun hands signals on to the tasks. The warning reaches this shell alone; a second one does no harm.",
            "step= signalled=",
            'trap \'signalled=1; [ -z "$step" ] || kill -USR1 "$step" 2>/dev/null\' USR1 TERM',
            f"srun --kill-on-bad-exit=1{cores} bash -c {shlex.quote(task)} {shlex.quote(job.python)} \\",
            f"  {_training(job)} &",
            "step=$!",
            'wait "$step"; code=$?',
            "# A signal ends `wait` before the tasks have ended; the next one tells how they did.",
            'while [ -n "$signalled" ]; do signalled=; wait "$step"; code=$?; done',
            "",
            f'if [ "$code" -eq {EXIT_STOPPED_BY_SCHEDULER} ]; then',
            '  echo "stopped in order; back into the queue"',
            '  exec scontrol requeue "$SLURM_JOB_ID"\nfi',
            'exit "$code"',
            "",
        ]
    )


def _comment(job: Job) -> str:
    return (
        f"Run {re.sub(r'[^ -~]', '?', job.name)} on {job.nodes} x {job.devices_per_node} devices; by aurora-m launch."
    )


def _threads(job: Job) -> str:
    """A share of the machine's cores for each process, counted where the script runs."""
    cores = job.cores_per_device or f"$(( $(nproc) > {job.devices_per_node} ? $(nproc) / {job.devices_per_node} : 1 ))"
    return f"export OMP_NUM_THREADS=${{OMP_NUM_THREADS:-{cores}}}"


def check_job(config: TrainConfig, job: Job) -> None:
    """Checks that the training can be dealt to the job's devices, before it waits in a queue.

    Raises:
        RecipeError: the degrees of `train.parallel` do not make that many devices, or a phase does not divide by them.
    """
    from .parallel import check_phase

    if job.devices == 1:
        return
    if config.lora:
        raise RecipeError(f"train.lora trains on one device, and this job has {job.devices}")
    for phase in config.phases:
        check_phase(phase, config.parallel, job.devices)


def write_script(job: Job, kind: Literal["slurm", "torchrun"]) -> Path:
    """Writes `<folder>/<kind>.sh`, which can be run as it is, and returns its path."""
    path = job.folder / f"{kind}.sh"
    write_text(path, slurm_script(job) if kind == "slurm" else torchrun_script(job))
    path.chmod(0o755)
    return path


def submit(script: Path) -> str:
    """Hands a script to sbatch; returns in words what it said, or that there is none here.

    Raises:
        AuroraError: sbatch refused it.
    """
    command = f"sbatch {shlex.quote(str(script))}"
    if shutil.which("sbatch") is None:
        return f"not submitted: there is no sbatch here; where Slurm is, give `{command}`"
    done = subprocess.run(["sbatch", script], cwd=script.parent, check=False, capture_output=True, text=True)
    if done.returncode:
        raise AuroraError(f"{command} ended with exit code {done.returncode}: {done.stderr.strip() or 'no message'}")
    return done.stdout.strip()
