#!/bin/bash
# A Slurm array that works off a cohort. Before it, once, on a login node:
#
#     wsiseg cohort plan slides/ -o results
#     mkdir -p results/logs
#     sbatch scripts/slurm_array.sh results
#
# `wsiseg cohort submit results` writes and submits such a script by itself; this one is to be read and changed.

# A name for squeue.
#SBATCH --job-name=wsiseg
# A hundred tasks, twenty at a time. Any number will do, also fewer than slides: each task takes slide after slide.
#SBATCH --array=0-99%20
# How long one task may run. A slide that is not finished by then is gone on with when the task runs again.
#SBATCH --time=4:00:00
# Processors and memory of one task. wsiseg uses what is granted here, whatever the node has; 4 GB do for two workers.
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
# Two minutes before the time limit Slurm sends this signal to the script (B:), that is, to wsiseg (see exec, below).
# wsiseg then keeps what is finished and has Slurm queue the task again, for Slurm does not do that by itself.
#SBATCH --signal=B:USR1@120
# Slurm may also queue a task again whose node was lost.
#SBATCH --requeue
# One log a task; a task that runs again adds to its own.
#SBATCH --output=results/logs/%A_%a.log
#SBATCH --open-mode=append
# On a GPU: one a task, and `--device cuda` at the end.
##SBATCH --partition=gpu --gpus=1

# Stop at the first command that fails, and at a variable that is not set.
set -eu

# What brings wsiseg into this shell: a module, a virtual environment, or nothing.
# module load python
# source ~/venvs/wsiseg/bin/activate

# exec: wsiseg takes this shell's place, so that the signal reaches it. --array: the share of this task of the array;
# when that is done, it takes what no other task is working on.
exec wsiseg cohort run "${1:-results}" --array
