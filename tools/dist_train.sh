#!/usr/bin/env bash
# Pre-train on the GPUs of one or several machines.
#   bash tools/dist_train.sh CONFIG GPUS [options of tools/train.py]
#   bash tools/dist_train.sh configs/univip_r50_coco.py 8 --amp --resume
# For several machines, set NNODES, NODE_RANK and MASTER_ADDR on each of them.
# Two runs on one machine need different values of PORT. Without a GPU, GPUS is
# the number of CPU processes.
set -euo pipefail
if [ $# -lt 2 ]; then
    sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
CONFIG=$1
GPUS=$2
TOOLS=$(dirname "$0")

PYTHONPATH="$TOOLS/..${PYTHONPATH:+:$PYTHONPATH}" \
exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" --node-rank="${NODE_RANK:-0}" \
    --master-addr="${MASTER_ADDR:-127.0.0.1}" --master-port="${PORT:-29500}" \
    --nproc-per-node="$GPUS" \
    "$TOOLS/train.py" "$CONFIG" --launcher pytorch "${@:3}"
