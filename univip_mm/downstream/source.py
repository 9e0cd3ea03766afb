"""Backbone of a checkpoint or of the folder of a training, for its users."""
import os
import os.path as osp
from collections import OrderedDict
from typing import NamedTuple, Optional

from mmengine.config import Config

from ..engine.checkpoint import latest_checkpoint, load_checkpoint, weights_of
from ..io.atomic import PathLike
from ..io.config_text import parse_config
from ..utils.text import printable
from .export_origin import is_extracted, origin_of
from .extract import check_tensors, extract_backbone

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


class Normalization(NamedTuple):
    """Normalization of the input of a network; values of 0 to 255.

    Attributes:
        mean (tuple[float, ...]): Per channel, in the order of the network.
        std (tuple[float, ...]): Per channel, in the order of the network.
        order (str): Order of the channels: 'RGB' or 'BGR'.
    """
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    order: str = 'RGB'


class BackboneSource(NamedTuple):
    """Backbone of one branch of a checkpoint.

    Attributes:
        path (str): The checkpoint.
        folder (str): Folder of the training, for files made from the
            checkpoint.
        weights (OrderedDict): State dict of the backbone.
        origin (dict): File, SHA-256, branch, epoch and iteration.
        model (dict): ``model`` of the config; empty if it is unknown.
        is_trusted (bool): The user has given the config, so that it may
            name any class.
    """
    path: str
    folder: str
    weights: OrderedDict
    origin: dict
    model: dict
    is_trusted: bool

    @property
    def backbone(self) -> dict:
        """Config of the backbone; empty if it is unknown."""
        found = self.model.get('backbone')
        return found if isinstance(found, dict) else {}

    @property
    def normalization(self) -> Normalization:
        """Normalization of the training, ImageNet's if it is unknown."""
        options = self.model.get('data_preprocessor')
        options = options if isinstance(options, dict) else {}
        values = [options.get('mean', IMAGENET_MEAN),
                  options.get('std', IMAGENET_STD)]
        for name, value in zip(('mean', 'std'), values):
            if not (isinstance(value, (list, tuple)) and len(value) == 3
                    and all(isinstance(x, (int, float)) for x in value)):
                raise ValueError(
                    f"'{printable(self.path)}': data_preprocessor.{name} of "
                    'its config is not a list of three numbers: give the '
                    'config with --config')
        return Normalization(
            *(tuple(map(float, value)) for value in values),
            'RGB' if options.get('to_rgb', True) else 'BGR')


def read_source(source: PathLike, branch: str = 'online',
                config: Optional[PathLike] = None) -> BackboneSource:
    """Read the backbone of a checkpoint.

    Args:
        source (str or PathLike): Checkpoint of UniVIP or BYOL, a backbone
            file of format 'mm', or a folder: OUT of ``univip pretrain``, or a
            work dir. A folder's latest checkpoint is used.
        branch (str): 'online' or 'target'. Defaults to 'online'.
        config (str or PathLike, optional): Config of the training. The
            default is the config text in the checkpoint, of which only
            literal values are read: no code of a checkpoint is executed.

    Raises:
        FileNotFoundError: The file does not exist, or the folder has no
            checkpoint.
        ValueError: The file is another kind of checkpoint, or has not this
            branch.
    """
    path, folder = _find_file(os.fspath(source))
    content = load_checkpoint(path)
    try:
        if is_extracted(content):
            weights = _extracted_weights(content, branch)
        else:
            weights = extract_backbone(content, branch)
    except ValueError as e:
        raise ValueError(f"'{printable(path)}': {e}") from None
    model = (_model_of_file(config) if config is not None else
             _model_of_checkpoint(content))
    return BackboneSource(path, folder, weights,
                          origin_of(path, content, branch), model,
                          config is not None)


def _find_file(source: str) -> tuple[str, str]:
    """Return the checkpoint and the folder of its training."""
    path = source
    if osp.isdir(source):
        path, skipped = latest_checkpoint(osp.join(source, 'checkpoints'))
        if path is None:
            path, more = latest_checkpoint(source)
            skipped += more
        if path is None:
            reasons = ''.join(f'; skipped {x.path} ({x.reason})'
                              for x in skipped[:3])
            raise FileNotFoundError(
                f"'{printable(source)}' has no checkpoint of a training"
                f'{printable(reasons)}: give the OUT of `univip pretrain`, a '
                'work dir, or a .pth file')
        folder = source
    else:
        folder = osp.dirname(path)
    if osp.basename(osp.normpath(folder or '.')) == 'checkpoints':
        folder = osp.dirname(osp.normpath(folder))
    return path, folder


def _extracted_weights(content: dict, branch: str) -> OrderedDict:
    found = content['meta']['branch']
    if found != branch:
        raise ValueError(
            f'the file has the {printable(found)} branch only: use --branch '
            f'{printable(found)}, or the checkpoint of the training')
    weights = weights_of(content)
    check_tensors(weights)
    return OrderedDict(weights)


def _model_of_file(config: PathLike) -> dict:
    """Return ``model`` of a config file, which is executed."""
    name = printable(config)
    if not osp.isfile(config):
        raise FileNotFoundError(f"there is no config '{name}'")
    try:
        model = Config.fromfile(config).get('model')
    except OSError as e:  # another type than .py, .json and .yaml
        raise ValueError(f"'{name}' is not a config: {e}") from None
    if not isinstance(model, dict) or 'backbone' not in model:
        raise ValueError(f"'{name}' has no model.backbone: give the config "
                         'of the training')
    return model.to_dict()


def _model_of_checkpoint(content: dict) -> dict:
    """Return ``model`` of the config text in a checkpoint, or {}."""
    meta = content.get('meta')
    text = meta.get('cfg') if isinstance(meta, dict) else None
    if not isinstance(text, str):
        return {}
    model = parse_config(text).get('model')
    return model if isinstance(model, dict) else {}
