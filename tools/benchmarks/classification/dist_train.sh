#!/usr/bin/env bash
# Train a classifier from a checkpoint of UniVIP or BYOL, or from an extracted backbone:
#   bash tools/benchmarks/classification/dist_train.sh CONFIG CHECKPOINT GPUS [options]
exec bash "$(dirname "$0")/../launch.sh" "$0" mmpretrain train pytorch "$@"
