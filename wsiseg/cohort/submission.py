"""The job script of a Slurm array: written, shown, submitted."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from wsiseg.cohort.plan import Plan
from wsiseg.errors import ConfigError, InputError

WARNING = 120
"""Seconds before the time limit at which Slurm sends the signal: the tiles in flight take some of them."""

ARRAY = re.compile(r"\d+(-\d+(:\d+)?)?(,\d+(-\d+(:\d+)?)?)*(%\d+)?")


@dataclass(frozen=True, slots=True)
class Request:
    """What a job asks Slurm for.

    array : str               as `sbatch --array` has it
    time : str                limit of one task; a slide may take several
    cpus, memory : int, str   of one task
    partition, account, gpus  "" and 0 for what the cluster gives by itself
    extra : of str            further options of sbatch
    """

    array: str
    time: str = "4:00:00"
    cpus: int = 4
    memory: str = "8G"
    partition: str = ""
    account: str = ""
    gpus: int = 0
    extra: tuple[str, ...] = ()


def job_script(plan: Plan, request: Request, *, options: Sequence[str] = (), command: str = "") -> str:
    """The script that each task of the array runs.

    Parameters
    ----------
    options
        For `wsiseg cohort run`, such as `--device cuda`.
    command
        What `wsiseg` is on the nodes; this Python's, where it is empty.

    Raises
    ------
    ConfigError
        If the array or an option is not what sbatch takes.
    """
    if not ARRAY.fullmatch(request.array):
        raise ConfigError(f"--array {request.array}: expected 0-99, 0-99%20 or 5,7")
    if re.search(r"[\s\"'\\]", str(plan.folder)):
        raise ConfigError(
            f"{plan.folder}: sbatch takes no folder with blanks, quotes or backslashes; choose another"
        )
    asked = {
        "job-name": "wsiseg",
        "array": request.array,
        "time": request.time,
        "cpus-per-task": str(request.cpus),
        "mem": request.memory,
        "partition": request.partition,
        "account": request.account,
        "gpus": str(request.gpus or ""),
        "signal": f"B:USR1@{WARNING}",
        "output": f"{str(plan.folder).replace('%', '%%')}/logs/%A_%a.log",
    }
    lines = [f"#SBATCH --{name}={value}" for name, value in asked.items() if value]
    lines += ["#SBATCH --requeue", "#SBATCH --open-mode=append"]
    lines += [f"#SBATCH {option}" for option in request.extra]
    for line in lines:
        if "\n" in line or '"' in line:
            raise ConfigError(f"{line!r}: an option of sbatch has neither quotes nor line breaks")
    if "\n" in command:
        raise ConfigError(f"--command {command!r}: is one line")
    program = command or f"{shlex.quote(sys.executable)} -m wsiseg"
    run = " ".join(
        [program, "cohort", "run", shlex.quote(str(plan.folder)), "--array", *map(shlex.quote, options)]
    )
    return "\n".join(["#!/bin/bash", *lines, "set -eu", (FOREIGN if command else OWN).format(run=run)])


OWN = """\
# exec: the signal before the time limit goes to this shell, and so to wsiseg, which then requeues itself.
exec {run}
"""

FOREIGN = """\
# In a container there is no scontrol: this shell passes signals on, and requeues where USR1 stopped wsiseg.
{run} --no-requeue &
child=$!
trap 'kill -USR1 "$child"' USR1
trap 'kill -TERM "$child"' TERM
while :; do
    status=0
    wait "$child" || status=$?
    kill -0 "$child" 2>/dev/null || break
done
if [ "$status" = 138 ]; then
    scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID"
fi
exit "$status"
"""


def submit(plan: Plan, script: str) -> str:
    """Write the script beside the results and give it to sbatch; returns what sbatch said.

    Raises
    ------
    InputError
        If there is no sbatch here, or it refuses.
    """
    if shutil.which("sbatch") is None:
        raise InputError(
            "sbatch was not found; run this on a login node of the cluster, or give --dry-run to see the script"
        )
    path = plan.folder / "slurm_array.sh"
    try:
        (plan.folder / "logs").mkdir(exist_ok=True)
        path.write_text(script, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    done = subprocess.run(["sbatch", str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"sbatch refused {path}: {' '.join(done.stderr.split())}")
    return done.stdout.strip()


def requeue(job: str) -> bool:
    """Have Slurm run this task again; whether it agreed."""
    if not job or shutil.which("scontrol") is None:
        return False
    done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
    # Queueing a task again ends all its processes, and scontrol may be ended before it can say so.
    return done.returncode in (0, -signal.SIGTERM)
