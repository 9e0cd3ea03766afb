"""Check before the training that weights fit: ``init_cfg``, ``load_from``."""
import logging
import os
import re

from mmengine.config import Config
from mmengine.logging import print_log
from torch import nn

from ..utils.text import printable
from ..utils.unwrap import unwrap_model
from .branches import BRANCHES
from .checkpoint import weights_of
from .config import parts_of_type
from .initial_weights import read_initial_weights
from .safe_load import load


def check_init_cfg(cfg: Config, model: nn.Module) -> None:
    """Check the files of each ``init_cfg`` of type Pretrained.

    This is the check that is made while they are loaded, at the start of the
    training. URLs and other scopes than ``univip_mm`` are not checked.

    Raises:
        FileNotFoundError: A file does not exist.
        ValueError: It cannot be read or does not fit; one line.
    """
    if cfg.get('default_scope') == 'univip_mm':
        for key, init in parts_of_type(cfg.model, 'Pretrained', 'model'):
            _check_init(key, init, unwrap_model(model))


def _check_init(key: str, init: dict, model: nn.Module) -> None:
    # 'model.backbone.init_cfg', or '.init_cfg.0' in a list.
    match = re.fullmatch(r'model(?:\.(.+))?\.init_cfg(?:\.\d+)?', key)
    path = init.get('checkpoint')
    if match is None or not isinstance(path, str) or '://' in path:
        return
    try:
        part = model.get_submodule(match[1] or '')
    except AttributeError:
        return  # the model names this part otherwise
    try:
        read_initial_weights(path, part, init.get('partial', False),
                             init.get('prefix'), only_structure=True)
    except ValueError as e:
        raise ValueError(f'{key}: {e}') from None


def check_weights_fit(cfg: Config, model: nn.Module) -> None:
    """Check the file of ``cfg.load_from``.

    MMEngine would log what does not fit, and use random weights. A file of
    which no weight is of the model, or only a part of its backbone, is
    refused. If other parts differ, a line of the log counts them. Of a
    resume, which has checks of its own, only the first is checked. URLs are
    not checked.

    Raises:
        ValueError: The file does not fit; one line.
    """
    path = cfg.get('load_from')
    if path is None or '://' in path:
        return
    path, model = os.path.expanduser(path), unwrap_model(model)
    content = weights_of(load(path, only_structure=True))
    # The prefix of wrapped models, as MMEngine removes it.
    found = {name[7:] if name.startswith('module.') else name: value
             for name, value in content.items()}
    own = model.state_dict()
    if found.keys().isdisjoint(own):
        first = ', '.join(printable(x) for x in [*content][:2]) or 'nothing'
        raise ValueError(
            f"no weight in '{printable(path)}' belongs to this model (the "
            f'file has {first}, ...): give a checkpoint that tools/train.py '
            'has written for this config; a backbone belongs into '
            'model.backbone.init_cfg')
    wrong = [name for name in {**own, **found}
             if getattr(own.get(name), 'shape', None)
             != getattr(found.get(name), 'shape', None)]
    if cfg.get('resume') or not wrong:
        return
    prefix = BRANCHES['online']
    backbone = [x for x in wrong if x.startswith(prefix)
                and not x.endswith('num_batches_tracked')]
    if backbone and any(x.startswith(prefix) for x in found):
        raise ValueError(
            f"the backbone in '{printable(path)}' is another one than the "
            f'config\'s: {len(backbone)} tensors differ, for example '
            f"'{printable(backbone[0])}': give a checkpoint of the same "
            'backbone, or change model.backbone')
    print_log(
        f"load_from: {sum(x not in wrong for x in own)}/{len(own)} tensors of "
        f"the model are in '{printable(path)}'; {len(wrong)} differ, for "
        f"example '{printable(wrong[0])}'", logger='current',
        level=logging.WARNING)
