#!/usr/bin/env bash
# Trains in one process a node: sbatch --nodes=2 slurm-train.sh. A requeued job continues from its last checkpoint.
#SBATCH --job-name=mm-train
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
set -euo pipefail
: "${CONFIG:=docs/configs/stamps-retrieval.toml}" "${OUT:=runs/stamps}"
# The first host of the job keeps the store through which the processes find each other, at a port that depends on the job.
MASTER_ADDR="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
export MASTER_ADDR OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"
# srun does not take over --cpus-per-task of the job (since Slurm 22.05).
exec srun --cpus-per-task="$OMP_NUM_THREADS" mm train "$CONFIG" --out "$OUT" --resume
