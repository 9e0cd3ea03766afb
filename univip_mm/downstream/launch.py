"""From ``CONFIG CHECKPOINT GPUS`` to the processes of a benchmark."""
import os
import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path

from mmengine.config import Config

from ..engine.checkpoint import load_checkpoint
from .backbone import (
    check_fit,
    find_backbone,
    pretrained_options,
    save_whole,
)
from .export import BRANCHES
from .packages import check_host
from .worker import parse_options

WORKER = Path(__file__).parents[2] / 'tools' / 'benchmarks' / 'worker.py'


def prepare(args: Namespace) -> list[str]:
    """Check what was given, take the backbone out of the checkpoint where
    there is one to take out, and tell what a process has to do.

    Args:
        args (Namespace): Of tools/benchmarks/launch.py: host, tool, config,
            checkpoint, work_dir, cfg_options, rest.

    Returns:
        list[str]: The command line of tools/benchmarks/worker.py without its
        launcher.

    Raises:
        FileNotFoundError: The config or the checkpoint is missing.
        ValueError: The host is not installed, the checkpoint does not fit the
            config, or is of the wrong kind.
    """
    check_host(args.host)
    if not os.path.isfile(args.config):
        raise FileNotFoundError(f"there is no config '{args.config}'")
    cfg = Config.fromfile(args.config)
    options = list(args.cfg_options or [])
    if options:
        cfg.merge_from_dict(parse_options(options))
    work_dir = args.work_dir or os.path.join(
        'work_dirs', 'benchmarks',
        Path(args.config).stem, Path(args.checkpoint).stem)
    if args.tool == 'train':
        arguments = []
        options = start_from(cfg, args.checkpoint, work_dir) + options
    else:
        arguments = [to_test(cfg, args.checkpoint, work_dir)]
    return [
        *(word for option in options for word in ('--option', option)),
        args.host, args.tool, args.config, *arguments, '--work-dir', work_dir,
        *args.rest
    ]


def start_from(cfg: Config, checkpoint: str, work_dir: str) -> list[str]:
    """The options with which a training starts from the checkpoint."""
    if cfg.get('train_dataloader') is None:
        raise ValueError(f"'{cfg.filename}' trains nothing: run dist_test.sh "
                         'with the same arguments')
    path, backbone = find_backbone(checkpoint, work_dir)
    _check(cfg, checkpoint, backbone)
    return pretrained_options(cfg, path)


def to_test(cfg: Config, checkpoint: str, work_dir: str) -> str:
    """The checkpoint to test. Where the config trains nothing, that is the
    backbone of a pre-training, otherwise what dist_train.sh has trained."""
    if cfg.get('train_dataloader') is None:
        _, backbone = find_backbone(checkpoint, work_dir)
        _check(cfg, checkpoint, backbone)
        return save_whole(backbone, os.path.join(work_dir, 'whole.pth'))
    content = load_checkpoint(checkpoint)
    names = [str(name) for name in content.get('state_dict', content)]
    if (any(name.startswith(BRANCHES['target']) for name in names)
            or not any(name.startswith('backbone.') for name in names)):
        raise ValueError(
            f"'{checkpoint}' is a pre-training or a backbone, which cannot "
            'detect, segment or classify: train by dist_train.sh, and give '
            'the checkpoint in its work dir')
    return checkpoint


def _check(cfg, checkpoint, backbone) -> None:
    try:
        check_fit(cfg, backbone)
    except ValueError as e:
        raise ValueError(f"'{checkpoint}' and '{cfg.filename}': {e}") from None


def command(gpus: int, worker: list[str],
            environment: Mapping[str, str]) -> list[str]:
    """The processes on this machine, or on several: torchrun, or for 0 GPUs
    one process alone.

    Args:
        gpus (int): GPUS of the command line.
        worker (list[str]): What :func:`prepare` gave.
        environment (Mapping): NNODES, NODE_RANK, MASTER_ADDR and PORT.
    """
    if gpus == 0:
        return [sys.executable, str(WORKER), *worker]
    return [
        sys.executable, '-m', 'torch.distributed.run',
        f'--nnodes={environment.get("NNODES", 1)}',
        f'--node-rank={environment.get("NODE_RANK", 0)}',
        f'--master-addr={environment.get("MASTER_ADDR", "127.0.0.1")}',
        f'--master-port={environment.get("PORT", 29500)}',
        f'--nproc-per-node={gpus}',
        str(WORKER), '--launcher=pytorch', *worker
    ]


def slurm_command(gpus: int, worker: list[str],
                  environment: Mapping[str, str]) -> list[str]:
    """The processes under Slurm: srun.

    Args:
        gpus (int): GPUS of the command line, in all.
        worker (list[str]): What :func:`prepare` gave.
        environment (Mapping): PARTITION, JOB_NAME (univip), GPUS_PER_NODE
            (8), CPUS_PER_TASK (5) and SRUN_ARGS.

    Raises:
        ValueError: There are no GPUS.
    """
    if gpus < 1:
        raise ValueError(f'GPUS is {gpus}, but Slurm starts a task for each: '
                         'give 1 or more')
    on_node = min(gpus, int(environment.get('GPUS_PER_NODE', 8)))
    partition = environment.get('PARTITION')
    return [
        'srun',
        *([f'--partition={partition}'] if partition else []),
        f'--job-name={environment.get("JOB_NAME", "univip")}',
        f'--gres=gpu:{on_node}',
        f'--ntasks={gpus}',
        f'--ntasks-per-node={on_node}',
        f'--cpus-per-task={environment.get("CPUS_PER_TASK", 5)}',
        '--kill-on-bad-exit=1',
        *environment.get('SRUN_ARGS', '').split(),
        sys.executable, '-u', str(WORKER), '--launcher=slurm', *worker
    ]
