"""What a batch system granted this job: processors, memory, its place in an array. The host has more."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator, Mapping
from pathlib import Path

from wsiseg.errors import ConfigError

CPUS = ("SLURM_CPUS_PER_TASK", "NSLOTS", "PBS_NCPUS", "NCPUS", "LSB_DJOB_NUMPROC")
"""Processors granted, as Slurm, Grid Engine, PBS and LSF say; SLURM_CPUS_ON_NODE counts those of all tasks."""

MIB = 1 << 20


def processors(environment: Mapping[str, str] = os.environ) -> int | None:
    """Processors that a batch system granted this task; None where none says.

    >>> processors({"SLURM_CPUS_PER_TASK": "4"}), processors({"NSLOTS": "8"}), processors({})
    (4, 8, None)
    """
    for name in CPUS:
        if environment.get(name, "").isdecimal():
            return max(1, int(environment[name]))
    tasks, node = environment.get("SLURM_NTASKS_PER_NODE", "1"), environment.get("SLURM_CPUS_ON_NODE", "")
    if node.isdecimal():
        return max(1, int(node) // max(1, int(tasks) if tasks.isdecimal() else 1))
    return None


def memory(environment: Mapping[str, str] = os.environ, *, root: Path = Path("/")) -> int | None:
    """Bytes of memory that this process may use, where something says: Slurm, its control groups, or `ulimit -v`.

    >>> memory({"SLURM_MEM_PER_NODE": "4096"}, root=Path("nowhere")) == 4 << 30
    True
    >>> memory({"SLURM_MEM_PER_CPU": "1024", "SLURM_CPUS_PER_TASK": "2"}, root=Path("nowhere")) == 2 << 30
    True
    """
    limits = [int(text) for path in _control_groups(root) if (text := _text(path).strip()).isdecimal()]
    space = resource.getrlimit(resource.RLIMIT_AS)[0]
    if space != resource.RLIM_INFINITY:
        limits.append(space)
    per_node, per_cpu = environment.get("SLURM_MEM_PER_NODE", ""), environment.get("SLURM_MEM_PER_CPU", "")
    if per_node.isdecimal() and int(per_node):
        limits.append(int(per_node) * MIB)
    elif per_cpu.isdecimal() and int(per_cpu):
        limits.append(int(per_cpu) * MIB * (processors(environment) or 1))
    return min(limits, default=None)


def _control_groups(root: Path) -> Iterator[Path]:
    """Files that may limit memory: of this process's control group and every group that it lies in, old and new."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, kinds, group = line.split(":", 2)
        top = root / "sys/fs/cgroup"
        if kinds and "memory" not in kinds.split(","):
            continue
        top, name = (top / "memory", "memory.limit_in_bytes") if kinds else (top, "memory.max")
        inside = top / group.lstrip("/")
        yield from (place / name for place in (inside, *inside.parents) if place.is_relative_to(top))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def array_shard(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """(index, count) of this task in its job array, from 0.

    The count is that of the tasks that were submitted, whatever numbers they have: `--array=5,7` is two.
    Their places among each other are not told, so the number itself is taken, modulo the count.

    >>> array_shard({"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "4"})
    (3, 4)

    Raises
    ------
    ConfigError
        If this is no task of an array.
    """
    number, count = environment.get("SLURM_ARRAY_TASK_ID", ""), environment.get("SLURM_ARRAY_TASK_COUNT", "")
    if not number.isdecimal() or not count.isdecimal() or not int(count):
        raise ConfigError(
            "--array: this is no task of a Slurm array (SLURM_ARRAY_TASK_ID is not set); give --shard i/n"
        )
    first, step = (
        int(text) if text.isdecimal() else other
        for text, other in (
            (environment.get("SLURM_ARRAY_TASK_MIN", ""), 0),
            (environment.get("SLURM_ARRAY_TASK_STEP", ""), 1),
        )
    )
    return (int(number) - first) // max(1, step) % int(count), int(count)


def job_name(environment: Mapping[str, str] = os.environ) -> str:
    """The job as its batch system names it; "" outside of one.

    >>> job_name({"SLURM_JOB_ID": "12", "SLURM_ARRAY_JOB_ID": "10", "SLURM_ARRAY_TASK_ID": "2"})
    '10_2'
    """
    if environment.get("SLURM_ARRAY_JOB_ID") and environment.get("SLURM_ARRAY_TASK_ID"):
        return f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    names = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID")
    return next((environment[name] for name in names if environment.get(name)), "")
