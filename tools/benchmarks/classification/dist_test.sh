#!/usr/bin/env bash
# Evaluate a classifier that dist_train.sh has trained, or, by a config that trains
# nothing (knn_*, svm_*, probe_*), the checkpoint of a pre-training itself.
#   bash tools/benchmarks/classification/dist_test.sh CONFIG CHECKPOINT GPUS \
#       [--work-dir DIR] [--cfg-options KEY=VALUE ...] [options of mmpretrain's test.py]
# GPUS as for dist_train.sh.
set -euo pipefail
[ $# -ge 3 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
TOOLS=$(dirname "$0")/..

PYTHONPATH="$TOOLS/../..${PYTHONPATH:+:$PYTHONPATH}" \
exec "${PYTHON:-python}" "$TOOLS/launch.py" mmpretrain test "$@"
