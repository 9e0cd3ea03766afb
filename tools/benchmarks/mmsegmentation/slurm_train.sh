#!/usr/bin/env bash
# Train a segmentor under Slurm, from a checkpoint of UniVIP or BYOL, or an extracted backbone.
#   [PARTITION=gpu] bash tools/benchmarks/mmsegmentation/slurm_train.sh \
#       CONFIG CHECKPOINT GPUS [--work-dir DIR] [options as of dist_train.sh]
# Environment: PARTITION, JOB_NAME (univip), GPUS_PER_NODE (8), CPUS_PER_TASK (5),
# SRUN_ARGS for more options of srun.
set -euo pipefail
[ $# -ge 3 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
TOOLS=$(dirname "$0")/..

PYTHONPATH="$TOOLS/../..${PYTHONPATH:+:$PYTHONPATH}" \
exec "${PYTHON:-python}" "$TOOLS/launch.py" mmseg train "$@" --slurm
