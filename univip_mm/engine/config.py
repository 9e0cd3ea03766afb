"""The config of a run: from the command line to what can be told about it
before anything is built."""
import argparse
import logging
import os
import os.path as osp
from collections.abc import Iterator

from mmengine.config import Config, DictAction
from mmengine.logging import print_log

from ..models.univip_neck import check_instance_count
from .checkpoint import is_whole, latest_checkpoint


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that tools/train.py and tools/test.py share, all of which
    :func:`load_config` reads."""
    parser.add_argument('config', help='the config file')
    parser.add_argument(
        '--work-dir',
        help='folder of the log and the checkpoints (default: '
        'work_dirs/CONFIG)')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='change values of the config, such as optim_wrapper.optimizer.'
        'lr=0.1; a list is written as key="[a,b]"')
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='who started the processes; the .sh files set it')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0,
                        help=argparse.SUPPRESS)


def load_config(args: argparse.Namespace) -> Config:
    """The config with the command line's options in it.

    Raises:
        FileNotFoundError: There is no such config.
        ValueError: It is not a config.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    if not osp.isfile(args.config):
        raise FileNotFoundError(f"there is no config '{args.config}'")
    try:
        cfg = Config.fromfile(args.config)
    except OSError as e:  # of another type than .py, .json, .yaml
        raise ValueError(f"'{args.config}' is not a config: {e}") from None
    cfg.launcher = args.launcher
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = osp.join('./work_dirs',
                                osp.splitext(osp.basename(args.config))[0])
    return cfg


def check_part(cfg: Config, name: str) -> None:
    """Whether the config has this part, such as ``test_dataloader``.

    Raises:
        ValueError: It has not.
    """
    if cfg.get(name) is None:
        raise ValueError(f"'{cfg.filename}' has no {name}: "
                         'configs/univip_r18_demo.py, with its bases, shows '
                         'one')


def find_checkpoint(cfg: Config) -> None:
    """Whether the checkpoint to load or to resume from is there and whole.
    Where none is named, the latest whole one in the work dir is taken.

    Raises:
        FileNotFoundError: It is not there.
        ValueError: It is cut short.
    """
    path = cfg.get('load_from')
    if path is not None:
        if '://' in path:
            return
        path = osp.expanduser(path)
        if not osp.isfile(path):
            raise FileNotFoundError(
                f"there is no checkpoint '{path}': give the path of one")
        if not is_whole(path):
            raise ValueError(
                f"the checkpoint '{path}' is cut short: give the one before "
                'it, or --resume alone, which finds the latest whole one')
        return
    if not cfg.get('resume'):
        return
    path, passed_over = latest_checkpoint(cfg.work_dir)
    if path is None and passed_over:
        raise FileNotFoundError(
            f"'{cfg.work_dir}' has no whole checkpoint: "
            f"{', '.join(map(repr, passed_over))} cut short or gone; give "
            '--resume CHECKPOINT, or leave --resume out to start anew')
    cfg.load_from = path
    if passed_over:
        print_log(
            f'passed over {len(passed_over)} checkpoints that are cut short '
            f'or gone: {", ".join(passed_over)}',
            level=logging.WARNING)


def check_num_instances(cfg: Config) -> None:
    """Check that the views have as many instances as the model fuses.

    Raises:
        ValueError: The numbers differ.
    """
    fused = cfg.model.get('fusion_neck', {}).get('num_instances', 4)
    for path, crop in parts_of_type(cfg.train_dataloader, 'OverlapSceneCrop',
                                    'train_dataloader'):
        check_instance_count(
            crop.get('num_instances', 4), fused, f'{path}.num_instances')


def parts_of_type(node, name: str, path: str) -> Iterator[tuple[str, dict]]:
    """Every dict with ``type=name`` below a node of a config, with its dotted
    name, which begins with ``path``."""
    if isinstance(node, dict):
        if node.get('type') == name:
            yield path, node
        children = node.items()
    elif isinstance(node, (list, tuple)):
        children = enumerate(node)
    else:
        return
    for key, child in children:
        yield from parts_of_type(child, name, f'{path}.{key}')
