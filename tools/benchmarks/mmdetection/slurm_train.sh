#!/usr/bin/env bash
# Train a detector under Slurm from a checkpoint of UniVIP or BYOL, or from an extracted backbone:
#   PARTITION=gpu bash tools/benchmarks/mmdetection/slurm_train.sh CONFIG CHECKPOINT GPUS [options]
exec bash "$(dirname "$0")/../launch.sh" "$0" mmdet train slurm "$@"
