"""Check before the training that weights fit: ``init_cfg``, ``load_from``."""
import os
import re

from mmengine.config import Config
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
    match = re.fullmatch(r'model(?:\.(.+))?\.init_cfg(\.\d+)?', key)
    path = init.get('checkpoint')
    if match is None or not isinstance(path, str) or '://' in path:
        return
    try:
        part = model.get_submodule(match[1] or '')
    except AttributeError:
        return  # the model names this part otherwise
    if match[2] and getattr(part, 'pos_embed', None) is not None:
        raise ValueError(
            f'{key}: {type(part).__name__} initializes its position embedding '
            'after the items of a list, and so drops that of the file: write '
            'init_cfg as one dict')
    try:
        read_initial_weights(path, part, init.get('partial', False),
                             init.get('prefix'), only_structure=True)
    except ValueError as e:
        raise ValueError(f'{key}: {e}') from None


def check_weights_fit(cfg: Config, model: nn.Module) -> None:
    """Check the file of ``cfg.load_from``.

    MMEngine would log what does not fit, and use random weights. A file of
    which no weight is of the model, or only a part of its backbone, is
    refused. ``ChangedRunHook`` reports other parts that differ, and checks a
    resume. URLs are not checked.

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
    prefix = BRANCHES['online']
    wrong = [x for x in {**own, **found} if x.startswith(prefix)
             and not x.endswith('num_batches_tracked')
             and getattr(own.get(x), 'shape', None)
             != getattr(found.get(x), 'shape', None)]
    if (wrong and not cfg.get('resume')
            and any(x.startswith(prefix) for x in found)):
        raise ValueError(
            f"the backbone in '{printable(path)}' is another one than the "
            f"config's: {len(wrong)} tensors differ, for example "
            f"'{printable(wrong[0])}': give a checkpoint of the same "
            'backbone, or change model.backbone')
