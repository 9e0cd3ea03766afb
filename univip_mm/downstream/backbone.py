"""The backbone of a checkpoint for a config of a benchmark: found or taken
out of a pre-training, and held against the config name by name."""
import os
from collections import OrderedDict
from pathlib import Path
from typing import Optional

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from ..engine.checkpoint import load_checkpoint
from ..engine.config import parts_of_type
from ..io.atomic import atomic_write
from .export import depth_of, extract_backbone, save_backbone

# The first weight of every ResNet; `backbone.` stands before it within a
# pre-training and within what was fine-tuned.
FIRST = 'conv1.weight'


def find_backbone(checkpoint: str, work_dir: str) -> tuple[str, OrderedDict]:
    """A file with nothing but a backbone, and its weights.

    That of a pre-training of UniVIP or BYOL is written to
    ``WORK_DIR/backbone.pth``, unless it is there from an earlier run; a
    backbone that was extracted before is taken as it is.

    Args:
        checkpoint (str): Path of either.
        work_dir (str): Folder of the benchmark's run.

    Returns:
        tuple[str, OrderedDict]: Path and state dict.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is neither.
    """
    content = load_checkpoint(checkpoint)
    weights = content.get('state_dict', content)
    if isinstance(weights, dict) and FIRST in weights:
        return checkpoint, OrderedDict(weights)
    try:
        backbone = extract_backbone(content)
    except ValueError as e:
        raise ValueError(f"'{checkpoint}': {e}, or a backbone of "
                         'tools/extract_backbone.py') from None
    out = Path(work_dir, 'backbone.pth')
    if not _is_there(out, checkpoint):
        save_backbone(backbone, out, checkpoint, content)
    return str(out), backbone


def _is_there(out: Path, checkpoint: str) -> bool:
    """Whether ``out`` was taken out of this checkpoint as it is now."""
    if not out.is_file() or (out.stat().st_mtime <
                             os.stat(checkpoint).st_mtime):
        return False
    meta = load_checkpoint(str(out)).get('meta', {})
    return meta.get('source') == Path(checkpoint).name


def pretrained_parts(cfg: Config) -> list[str]:
    """Dotted names of the model's parts that take a pre-trained backbone:
    those with ``init_cfg`` of type Pretrained, or else ``model.backbone``.

    Raises:
        ValueError: The config has no model with a backbone.
    """
    parts = [
        path[:-len('.init_cfg')]
        for path, _ in parts_of_type(cfg.model, 'Pretrained', 'model')
        if path.endswith('.init_cfg')
    ]
    if parts:
        return parts
    if 'backbone' not in cfg.model:
        raise ValueError(f"the model of '{cfg.filename}' has no backbone: "
                         'give a config like those of configs/benchmarks/')
    return ['model.backbone']


def pretrained_options(cfg: Config, path: str) -> list[str]:
    """The ``--cfg-options`` with which the model starts from a backbone.

    Raises:
        ValueError: They cannot carry the path.
    """
    if set(path) & set(' ,()[]"\''):
        raise ValueError(
            f"'{path}' has a space, a comma, a bracket or a quote, which "
            '--cfg-options does not carry to the tool: give a --work-dir, or '
            'for an extracted backbone a path, without')
    options = []
    if cfg.model.get('pretrained') is not None:  # mmseg's; init_cfg is newer
        options.append('model.pretrained=None')
    for part in pretrained_parts(cfg):
        options += [f'{part}.init_cfg.type=Pretrained',
                    f'{part}.init_cfg.checkpoint={path}']
    return options


def check_fit(cfg: Config, backbone: OrderedDict) -> None:
    """Whether each weight of the backbone has its place in the config's
    model, and each place its weight: what does not fit would be left out
    without an error when it is loaded.

    Parts of the model share the backbone where it is cut in two, as in C4
    detectors. A norm that such a head has in addition may stay without.

    Raises:
        ValueError: It is not so.
    """
    places = {}
    for part in pretrained_parts(cfg):
        with DefaultScope.overwrite_default_scope(
                cfg.get('default_scope', 'mmengine')):
            module = MODELS.build(_without_init(cfg, part))
        places.update((name, value.shape)
                      for name, value in module.state_dict().items()
                      if not name.startswith('norm.'))
    found = {name: value.shape for name, value in backbone.items()
             if not name.startswith('fc.')}
    wrong = sorted(name for name in places.keys() | found.keys()
                   if places.get(name) != found.get(name))
    if not wrong:
        return
    raise ValueError(
        f'{len(wrong)} of {len(places)} weights do not fit, such as '
        f"'{wrong[0]}', {_size(found.get(wrong[0]))} in the checkpoint and "
        f'{_size(places.get(wrong[0]))} in the config: '
        f'{_cure(cfg, backbone)}')


def _without_init(cfg: Config, part: str) -> dict:
    node = cfg
    for key in part.split('.'):
        node = node[key]
    return {key: value for key, value in node.items() if key != 'init_cfg'}


def _size(shape: Optional[torch.Size]) -> str:
    return 'missing' if shape is None else 'x'.join(map(str, shape)) or '1'


def _cure(cfg: Config, backbone: OrderedDict) -> str:
    depth, wanted = depth_of(backbone), cfg.model.backbone.get('depth')
    if depth is not None and wanted is not None and depth != wanted:
        return (f'the checkpoint is a ResNet-{depth}, the config a '
                f'ResNet-{wanted}: give a checkpoint of that depth, or '
                f'--cfg-options model.backbone.depth={depth} and the '
                'in_channels of what follows')
    kind = cfg.model.backbone.type
    return (f"the config's backbone is {kind}: give a checkpoint of the same "
            'network, or a config with type=ResNet and its depth')


def save_whole(backbone: OrderedDict, out: str) -> str:
    """Write the backbone as the checkpoint of a model that has no other
    weights, which a benchmark without training is; the path."""
    with atomic_write(out) as file:
        torch.save(
            dict(
                state_dict=OrderedDict(
                    (f'backbone.{name}', value)
                    for name, value in backbone.items()
                    if not name.startswith('fc.'))), file)
    return out
