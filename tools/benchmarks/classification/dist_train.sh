#!/usr/bin/env bash
# Train a classifier, from a checkpoint of UniVIP or BYOL, or an extracted backbone.
#   bash tools/benchmarks/classification/dist_train.sh CONFIG CHECKPOINT GPUS \
#       [--work-dir DIR] [--cfg-options KEY=VALUE ...] [options of mmpretrain's train.py]
# On a machine without a GPU, GPUS is the number of processes; 0 is one process
# on the CPU of any machine. Several machines: NNODES, NODE_RANK, MASTER_ADDR and
# PORT on each.
set -euo pipefail
[ $# -ge 3 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
TOOLS=$(dirname "$0")/..

PYTHONPATH="$TOOLS/../..${PYTHONPATH:+:$PYTHONPATH}" \
exec "${PYTHON:-python}" "$TOOLS/launch.py" mmpretrain train "$@"
