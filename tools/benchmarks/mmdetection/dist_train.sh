#!/usr/bin/env bash
# Train a detector from a checkpoint of UniVIP or BYOL, or from an extracted backbone:
#   bash tools/benchmarks/mmdetection/dist_train.sh CONFIG CHECKPOINT GPUS [options]
exec bash "$(dirname "$0")/../launch.sh" "$0" mmdet train pytorch "$@"
