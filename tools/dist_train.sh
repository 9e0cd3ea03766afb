#!/usr/bin/env bash
# Pre-train on the GPUs of one or several machines.
#   bash tools/dist_train.sh CONFIG GPUS [options of tools/train.py]
#   bash tools/dist_train.sh configs/univip_r50_coco.py 8 --amp --resume
# Without a GPU, GPUS is the number of CPU processes. Two runs on one machine
# need different values of PORT (29500).
#
# For N machines, start this command on each of them, with another I:
#   NNODES=N NODE_RANK=I MASTER_ADDR=HOST bash tools/dist_train.sh CONFIG GPUS
# I is 0, 1, ..., N-1, and HOST is the machine with NODE_RANK=0, which waits
# JOIN_TIMEOUT (300) seconds for the others; they wait for HOST up to three
# times as long. All machines end if one fails or is cut off, within about a
# minute (default_hooks.heartbeat). After a failure, read the line that begins
# with "error:"; torchrun prints a traceback below it.
# If the ranks cannot connect, set NCCL_SOCKET_IFNAME (GPUs) or
# GLOO_SOCKET_IFNAME (CPUs) on each machine to the network interface that
# leads to the others, for example eth0 (see "ip address"). This is necessary
# without GPUs if the host name of a machine resolves to 127.0.0.1.
set -euo pipefail
if [ $# -lt 2 ]; then
    sed -n '2,18s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
if [ "${NNODES:-1}" != 1 ] && [ -z "${MASTER_ADDR:-}" ]; then
    echo "error: NNODES is $NNODES but MASTER_ADDR is not set: give the host" \
        "name of the machine with NODE_RANK=0" >&2
    exit 2
fi
CONFIG=$1
GPUS=$2
TOOLS=$(dirname "$0")

PYTHONPATH="$TOOLS/..${PYTHONPATH:+:$PYTHONPATH}" \
exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" --node-rank="${NODE_RANK:-0}" \
    --master-addr="${MASTER_ADDR:-127.0.0.1}" --master-port="${PORT:-29500}" \
    --rdzv-conf="timeout=${JOIN_TIMEOUT:-300}" --nproc-per-node="$GPUS" \
    "$TOOLS/train.py" "$CONFIG" --launcher pytorch "${@:3}"
