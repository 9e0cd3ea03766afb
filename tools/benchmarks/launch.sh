#!/usr/bin/env bash
# Check the number of arguments and start a benchmark. The scripts in mmdetection/, mmsegmentation/ and classification/
# call this script:
#   launch.sh SCRIPT PACKAGE train|test pytorch|slurm CONFIG CHECKPOINT GPUS [options]
set -euo pipefail
script=$1 package=$2 tool=$3 launcher=$4
shift 4

usage() {
    echo "usage: bash $script CONFIG CHECKPOINT GPUS \\
    [--work-dir DIR] [--cfg-options KEY=VALUE ...] [options of $package's $tool.py]
"
    if [ "$tool" = train ]; then
        echo "CHECKPOINT: checkpoint of UniVIP or BYOL, or a backbone of tools/extract_backbone.py.
Example: 8 GPUs, mixed precision.
    bash $script configs/benchmarks/$(basename "$(dirname "$script")")/CONFIG.py \\
        work_dirs/univip_r50_coco/epoch_800.pth 8 --amp
"
    else
        echo "CHECKPOINT: checkpoint that dist_train.sh has written; for a config that trains nothing
(knn_*, svm_*, probe_* in classification/), the pre-training checkpoint.
"
    fi
    if [ "$launcher" = pytorch ]; then
        echo "GPUS: number of GPUs; on a machine without a GPU, number of processes; 0: one process on the CPU.
Environment: NNODES, NODE_RANK, MASTER_ADDR, PORT and JOIN_TIMEOUT, on each of several machines, and
NCCL_SOCKET_IFNAME (GPUs) or GLOO_SOCKET_IFNAME (CPUs): see the head of tools/dist_train.sh."
    else
        echo "GPUS: total number of GPUs.
Environment: PARTITION, JOB_NAME (univip), GPUS_PER_NODE (8), CPUS_PER_TASK (5), and
SRUN_ARGS for other options of srun."
    fi
}

[ $# -ge 3 ] || { usage >&2; exit 2; }
PYTHONPATH="$(dirname "$0")/../..${PYTHONPATH:+:$PYTHONPATH}" \
exec "${PYTHON:-python}" -m univip_mm.downstream.launch "$package" "$tool" "$launcher" "$@"
