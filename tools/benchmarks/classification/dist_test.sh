#!/usr/bin/env bash
# Evaluate a classifier that dist_train.sh has trained, or k-NN and linear probes of a pre-training checkpoint:
#   bash tools/benchmarks/classification/dist_test.sh CONFIG CHECKPOINT GPUS [options]
exec bash "$(dirname "$0")/../launch.sh" "$0" mmpretrain test pytorch "$@"
