#!/usr/bin/env bash
# Pre-train with Slurm.
#   [GPUS=8] bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR \
#       [options of tools/train.py]
#   GPUS=16 bash tools/slurm_train.sh gpu univip configs/univip_r50_coco.py \
#       work_dirs/coco --resume
# Environment variables and their defaults: GPUS (8, of all nodes),
# GPUS_PER_NODE (8), CPUS_PER_TASK (8), and SRUN_ARGS with options of srun.
# If the ranks cannot connect, set NCCL_SOCKET_IFNAME (GPUs) or
# GLOO_SOCKET_IFNAME (CPUs) to the network interface between the machines.
set -euo pipefail
if [ $# -lt 4 ]; then
    sed -n '2,10s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
PARTITION=$1
JOB_NAME=$2
CONFIG=$3
WORK_DIR=$4
GPUS=${GPUS:-8}
GPUS_PER_NODE=${GPUS_PER_NODE:-8}
[ "$GPUS_PER_NODE" -le "$GPUS" ] || GPUS_PER_NODE=$GPUS
TOOLS=$(dirname "$0")

# shellcheck disable=SC2086  # SRUN_ARGS has several words
PYTHONPATH="$TOOLS/..${PYTHONPATH:+:$PYTHONPATH}" \
exec srun -p "$PARTITION" --job-name="$JOB_NAME" \
    --gres="gpu:$GPUS_PER_NODE" --ntasks="$GPUS" \
    --ntasks-per-node="$GPUS_PER_NODE" \
    --cpus-per-task="${CPUS_PER_TASK:-8}" --kill-on-bad-exit=1 \
    ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "$TOOLS/train.py" "$CONFIG" \
    --work-dir="$WORK_DIR" --launcher=slurm "${@:5}"
