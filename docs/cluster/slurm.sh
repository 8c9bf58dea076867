#!/bin/bash
#SBATCH --job-name=refine
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
# Computes a list of runs on the nodes of this job: sbatch docs/cluster/slurm.sh experiments/compare.yaml
# Submit it from the checkout, which all nodes see under the same path, with the project's environment active.
# The nodes are the job's alone, as Ray takes a fixed port, and ends every Ray of yours on them at the end.
# For GPUs, add #SBATCH --gpus-per-node=1 and GPUS=1.
set -euo pipefail

list="${1:?name a list, such as experiments/compare.yaml}"
head="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH="$HOME/.refine-ray-token-$SLURM_JOB_ID"
trap 'rm -f "$RAY_AUTH_TOKEN_PATH"' EXIT
(umask 077 && python -c 'import secrets; print(secrets.token_hex(32))' >"$RAY_AUTH_TOKEN_PATH")

export RAY_ADDRESS="$head:6379"
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=1 ray symmetric-run --address "$RAY_ADDRESS" --min-nodes "$SLURM_JOB_NUM_NODES" \
    --num-cpus "$SLURM_CPUS_PER_TASK" -- \
    refine run-list "$list" --engine ray --cpus "${CPUS:-1}" --gpus "${GPUS:-0}"
