#!/usr/bin/env bash
# Evaluate a segmentor that dist_train.sh has trained:
#   bash tools/benchmarks/mmsegmentation/dist_test.sh CONFIG CHECKPOINT GPUS [options]
exec bash "$(dirname "$0")/../launch.sh" "$0" mmseg test pytorch "$@"
