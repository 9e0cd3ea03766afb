#!/usr/bin/env bash
# Evaluate a detector that dist_train.sh has trained:
#   bash tools/benchmarks/mmdetection/dist_test.sh CONFIG CHECKPOINT GPUS [options]
exec bash "$(dirname "$0")/../launch.sh" "$0" mmdet test pytorch "$@"
