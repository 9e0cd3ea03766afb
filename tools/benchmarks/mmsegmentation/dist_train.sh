#!/usr/bin/env bash
# Train a segmentor from a checkpoint of UniVIP or BYOL, or from an extracted backbone:
#   bash tools/benchmarks/mmsegmentation/dist_train.sh CONFIG CHECKPOINT GPUS [options]
exec bash "$(dirname "$0")/../launch.sh" "$0" mmseg train pytorch "$@"
