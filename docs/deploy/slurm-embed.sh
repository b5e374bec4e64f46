#!/usr/bin/env bash
# Embeds shards in a job array: sbatch --array=0-15 slurm-embed.sh. A task that is killed or requeued leaves no half-written shard;
# the others take what it had, and the job can be submitted again at any time.
#SBATCH --job-name=mm-embed
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --requeue
set -euo pipefail
: "${MODEL:=openai/clip-vit-base-patch32}" "${SHARDS:=shards/photos-{000000..000099\}.tar}" "${OUT:=vectors}"
export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"
exec mm embed --model "$MODEL" --shards "$SHARDS" --out "$OUT"
