"""Training config: command line, sections and nested parts."""
import argparse
import os
import os.path as osp
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ..models.univip_neck import check_instance_count
from ..utils.distributed import LAUNCHERS
from ..utils.text import excerpt, printable


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that :func:`load_config` reads."""
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--work-dir',
        help='folder of logs and checkpoints (default: work_dirs/CONFIG)')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
        help='override config values, for example '
        'optim_wrapper.optimizer.lr=0.1; write a list as key="[a,b]"')
    parser.add_argument(
        '--launcher', choices=LAUNCHERS,
        default='none', help='launcher of the processes; the .sh scripts set '
        'this option (default: %(default)s)')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0,
                        help=argparse.SUPPRESS)


def load_config(args: argparse.Namespace) -> Config:
    """Load the config and apply the options of the command line.

    Raises:
        FileNotFoundError: The config does not exist.
        ValueError: The file is not a config, or an option does not fit it.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    if not osp.isfile(args.config):
        raise FileNotFoundError(f"there is no config '{args.config}'")
    try:
        cfg = Config.fromfile(args.config)
    except OSError as e:  # another type than .py, .json and .yaml
        raise ValueError(f"'{args.config}' is not a config: {e}") from None
    cfg.launcher = args.launcher
    if args.cfg_options is not None:
        try:
            cfg.merge_from_dict(args.cfg_options)
        except (KeyError, TypeError, AttributeError) as e:
            keys = ', '.join(map(printable, args.cfg_options))
            raise ValueError(
                f"--cfg-options {keys}: '{args.config}' has no such key "
                f'({excerpt(str(e.args[0]))}): check the spelling, and the '
                'length of lists') from None
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = osp.join('./work_dirs',
                                osp.splitext(osp.basename(args.config))[0])
    return cfg


def check_part(cfg: Config, name: str) -> None:
    """Raise ValueError if the config lacks a key, e.g. ``test_dataloader``."""
    if cfg.get(name) is None:
        raise ValueError(
            f"'{cfg.filename}' has no {name}: see configs/univip_r18_demo.py "
            'and its base configs for an example')


def check_runner_type(cfg: Config) -> None:
    """Raise ValueError for a runner that is not MMEngine's ``Runner``.

    FlexibleRunner writes checkpoints that the safe reader refuses, and calls
    no hook that could adapt them.
    """
    name = cfg.get('runner_type', 'Runner')
    kind = RUNNERS.get(name)
    if kind is None or not issubclass(kind, Runner):
        raise ValueError(f"runner_type is '{name}', but only Runner and its "
                         'subclasses are supported: leave runner_type out')


def check_num_instances(cfg: Config) -> None:
    """Raise ValueError unless the model fuses all instances of the views."""
    fused = cfg.model.get('fusion_neck', {}).get('num_instances', 4)
    for path, crop in parts_of_type(cfg.train_dataloader, 'OverlapSceneCrop',
                                    'train_dataloader'):
        check_instance_count(crop.get('num_instances', 4), fused,
                             f'{path}.num_instances')


def dicts_in(node: Any, path: str) -> Iterator[tuple[str, dict]]:
    """Yield each dict inside a config node, with its key.

    A key such as ``model.backbone`` starts with ``path``, the node's key.
    """
    if isinstance(node, dict):
        yield path, node
        children = node.items()
    elif isinstance(node, (list, tuple)):
        children = enumerate(node)
    else:
        return
    for key, child in children:
        yield from dicts_in(child, f'{path}.{key}')


def parts_of_type(node: Any, name: str,
                  path: str) -> Iterator[tuple[str, dict]]:
    """Yield each dict with ``type=name`` in a config node, with its key."""
    for key, part in dicts_in(node, path):
        if type_name(part) == name:
            yield key, part


def type_name(part: Mapping) -> str:
    """Return the name of a part's class, without the scope.

    The type is a class, or a name that can have a scope: 'univip_mm.UniVIP'.
    """
    found = part.get('type')
    return getattr(found, '__name__', str(found)).rpartition('.')[2]
