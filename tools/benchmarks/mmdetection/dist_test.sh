#!/usr/bin/env bash
# Evaluate a detector that dist_train.sh has trained.
#   bash tools/benchmarks/mmdetection/dist_test.sh CONFIG CHECKPOINT GPUS \
#       [--work-dir DIR] [--cfg-options KEY=VALUE ...] [options of mmdet's test.py]
# GPUS as for dist_train.sh.
set -euo pipefail
[ $# -ge 3 ] || { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2; }
TOOLS=$(dirname "$0")/..

PYTHONPATH="$TOOLS/../..${PYTHONPATH:+:$PYTHONPATH}" \
exec "${PYTHON:-python}" "$TOOLS/launch.py" mmdet test "$@"
