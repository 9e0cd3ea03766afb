"""Launcher of the benchmarks: from a checkpoint to running processes.

``python -m univip_mm.downstream.launch``, called by the scripts in
tools/benchmarks/, checks the arguments and the checkpoint, extracts the
backbone, and starts :mod:`univip_mm.downstream.worker` with torchrun or srun.
"""
import argparse
import os
import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmengine.config import Config, DictAction

from ..engine.branches import BRANCHES
from ..engine.checkpoint import load_checkpoint, weights_of
from ..io.outputs import check_output_folder
from ..utils.errors import one_line_errors
from .backbone import (
    check_fit,
    find_backbone,
    pretrained_options,
    save_backbone_as_model,
)
from .packages import PACKAGES, TOOLS, check_package

WORKER = 'univip_mm.downstream.worker'


def parse_args() -> argparse.Namespace:
    """Parse the command line; ``rest`` has the options of the tool."""
    parser = argparse.ArgumentParser(
        prog='python -m univip_mm.downstream.launch',
        description='Run a benchmark of a pre-training checkpoint with the '
        "package's own tool. All options that are not listed here go to this "
        'tool, for example --resume and --amp.', allow_abbrev=False)
    add = parser.add_argument
    add('package', choices=PACKAGES)
    add('tool', choices=TOOLS)
    add('launcher', choices=('pytorch', 'slurm'))
    add('config', help='config of the benchmark')
    add('checkpoint', help='train: checkpoint of UniVIP or BYOL, or a '
        'backbone of tools/extract_backbone.py; test: checkpoint that train '
        'has written, or, for a config that trains nothing, the same as for '
        'train')
    add('gpus', type=int, help='number of GPUs; without a GPU, number of '
        'processes; 0: one process without a GPU')
    add('--work-dir', help='default: work_dirs/benchmarks/CONFIG/CHECKPOINT')
    add('--cfg-options', nargs='+', metavar='KEY=VALUE',
        help='override config values, for example train_cfg.max_epochs=1')
    args, args.rest = parser.parse_known_args()
    return args


def worker_arguments(args: argparse.Namespace) -> list[str]:
    """Check the arguments, extract the backbone, and return the worker's argv.

    Raises:
        FileNotFoundError: The config or the checkpoint does not exist.
        ValueError: The package is not installed, the checkpoint does not fit
            the config or has the wrong kind, or there is nothing to train.
    """
    check_package(args.package)
    if not os.path.isfile(args.config):
        raise FileNotFoundError(f"there is no config '{args.config}'")
    cfg = Config.fromfile(args.config)
    options = args.cfg_options or []
    if options:
        cfg.merge_from_dict(parse_options(options))
    work_dir = args.work_dir or os.path.join(
        'work_dirs', 'benchmarks', Path(args.config).stem,
        Path(args.checkpoint).stem)
    check_output_folder(work_dir, '--work-dir')
    words = [args.package, args.tool, args.config]
    trains = cfg.get('train_dataloader') is not None
    if args.tool == 'train':
        if not trains:
            raise ValueError(f"'{cfg.filename}' trains nothing: run "
                             'dist_test.sh with the same arguments')
        path, _ = _fitting_backbone(cfg, args.checkpoint, work_dir)
        options = pretrained_options(cfg, path) + options
    elif trains:
        _check_trained(args.checkpoint)
        words.append(args.checkpoint)
    else:
        _, backbone = _fitting_backbone(cfg, args.checkpoint, work_dir)
        words.append(save_backbone_as_model(
            backbone, os.path.join(work_dir, 'whole.pth')))
    words += ['--work-dir', work_dir, *args.rest]
    return [*words, '--cfg-options', *options] if options else words


def parse_options(options: Sequence[str]) -> dict:
    """Parse values "key=value" in the same way as ``--cfg-options``."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='*', action=DictAction)
    return parser.parse_args(['--cfg-options', *options]).cfg_options


def _fitting_backbone(cfg: Config, checkpoint: str,
                      work_dir: str) -> tuple[str, OrderedDict]:
    path, backbone = find_backbone(checkpoint, work_dir)
    try:
        check_fit(cfg, backbone)
    except ValueError as e:
        raise ValueError(f"'{checkpoint}' and '{cfg.filename}': {e}") from None
    return path, backbone


def _check_trained(checkpoint: str) -> None:
    names = list(weights_of(load_checkpoint(checkpoint)))
    if (any(name.startswith(BRANCHES['target']) for name in names)
            or not any(name.startswith('backbone.') for name in names)):
        raise ValueError(
            f"'{checkpoint}' is a pre-training checkpoint or a backbone, "
            'which has no head: train with dist_train.sh, and use the '
            'checkpoint in its work dir')


def torchrun_command(gpus: int, arguments: Sequence[str],
                     environment: Mapping[str, str]) -> list[str]:
    """Return the command that starts ``gpus`` processes on this machine.

    0 means one process without torchrun. ``environment`` can have NNODES,
    NODE_RANK, MASTER_ADDR, PORT and JOIN_TIMEOUT, for several machines.

    Raises:
        ValueError: There are several machines, but no MASTER_ADDR.
    """
    if gpus == 0:
        return [sys.executable, '-m', WORKER, *arguments]
    get = environment.get
    if get('NNODES', '1') != '1' and not get('MASTER_ADDR'):
        raise ValueError(f"NNODES is {get('NNODES')} but MASTER_ADDR is not "
                         'set: give the host name of the machine with '
                         'NODE_RANK=0')
    return [
        sys.executable, '-m', 'torch.distributed.run',
        f'--nnodes={get("NNODES", 1)}', f'--node-rank={get("NODE_RANK", 0)}',
        f'--master-addr={get("MASTER_ADDR", "127.0.0.1")}',
        f'--master-port={get("PORT", 29500)}',
        f'--rdzv-conf=timeout={get("JOIN_TIMEOUT", 300)}',
        f'--nproc-per-node={gpus}',
        '-m', WORKER, *arguments, '--launcher=pytorch']


def slurm_command(gpus: int, arguments: Sequence[str],
                  environment: Mapping[str, str]) -> list[str]:
    """Return the srun command that starts one process for each of ``gpus``.

    ``environment`` can have PARTITION, JOB_NAME (univip), GPUS_PER_NODE (8),
    CPUS_PER_TASK (5) and SRUN_ARGS.
    """
    if gpus < 1:
        raise ValueError(f'GPUS is {gpus}, but Slurm starts one task per GPU: '
                         'give 1 or more')
    get = environment.get
    per_node = min(gpus, int(get('GPUS_PER_NODE', 8)))
    partition = get('PARTITION')
    return [
        'srun', *([f'--partition={partition}'] if partition else []),
        f'--job-name={get("JOB_NAME", "univip")}', f'--gres=gpu:{per_node}',
        f'--ntasks={gpus}', f'--ntasks-per-node={per_node}',
        f'--cpus-per-task={get("CPUS_PER_TASK", 5)}', '--kill-on-bad-exit=1',
        *get('SRUN_ARGS', '').split(),
        sys.executable, '-u', '-m', WORKER, *arguments, '--launcher=slurm']


def main() -> None:
    """Replace this process by the launcher of the workers."""
    args = parse_args()
    environment = dict(os.environ)
    command = slurm_command if args.launcher == 'slurm' else torchrun_command
    with one_line_errors():
        if args.gpus < 0:
            raise ValueError(f'GPUS is {args.gpus}: give 0 or more')
        words = command(args.gpus, worker_arguments(args), environment)
    if args.gpus == 0:
        environment['CUDA_VISIBLE_DEVICES'] = ''
    try:
        os.execvpe(words[0], words, environment)
    except FileNotFoundError:
        raise SystemExit(f"error: there is no '{words[0]}' on this machine: "
                         'run dist_train.sh or dist_test.sh') from None


if __name__ == '__main__':
    main()
