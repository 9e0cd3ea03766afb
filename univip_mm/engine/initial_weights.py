"""Weights to start from: files of torchvision, timm, MMPretrain and ours."""
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union

import torch
from torch import Tensor, nn

from ..io.atomic import atomic_write
from ..utils.text import printable
from .checkpoint import CheckpointError, load_url
from .safe_load import load
from .weight_names import from_timm, names_of, to_timm

# Classifiers that a backbone lacks.
_HEADS = ('fc', 'head', 'heads', 'head_dist', 'classifier', 'last_linear',
          'pre_logits')
_WRAPPERS = ('module.', '_orig_mod.')  # of DDP and of torch.compile
_TIMM = 'timm_model.'  # prefix in the backbones of class TIMMBackbone
_PARTIAL = ('to load only what fits, use --init-partial, in a config '
            'init_cfg.partial=True')


class InitialWeights(NamedTuple):
    """Weights of a file, with the names of a backbone.

    Attributes:
        path (str): File.
        state_dict (dict[str, Tensor]): Weights that fit the backbone.
        names (str): Whose names the file has.
        total (int): Number of tensors of the backbone; without its counters
            and indices of integers that the file lacks.
        missing (list[str]): Names of the backbone that the file lacks.
        unexpected (list[str]): Names that the backbone lacks.
        mismatched (list[str]): Names with another shape.
        ignored (list[str]): First parts of names that are not of a backbone.
    """
    path: str
    state_dict: dict[str, Tensor]
    names: str
    total: int
    missing: list[str]
    unexpected: list[str]
    mismatched: list[str]
    ignored: list[str]

    @property
    def is_partial(self) -> bool:
        """Return True if not all tensors fit each other."""
        return bool(self.missing or self.unexpected or self.mismatched)

    @property
    def report(self) -> str:
        """Return one line for the log."""
        parts = [f'{len(self.state_dict)}/{self.total} tensors loaded from '
                 f"'{printable(self.path)}' ({self.names})"]
        if self.ignored:
            parts.append('not used: ' + ', '.join(map(
                printable, self.ignored)))
        return '; '.join(parts + self._differences())

    def _differences(self) -> list[str]:
        return [f'{len(names)} {kind}, for example '
                f"'{printable(names[0])}'" for names, kind in (
                    (self.missing, 'missing in the file'),
                    (self.unexpected, 'missing in the backbone'),
                    (self.mismatched, 'of another shape')) if names]

    def check(self) -> None:
        """Raise CheckpointError if only a part fits."""
        if self.is_partial:
            raise CheckpointError(
                f"'{printable(self.path)}' fits only in part: "
                f'{len(self.state_dict)} of {self.total} tensors of the '
                f'backbone; {"; ".join(self._differences())}: give weights of '
                f'the same network, or {_PARTIAL}')


def read_initial_weights(path: str, backbone: nn.Module, partial: bool = False,
                         prefix: Optional[str] = None,
                         only_structure: bool = False) -> InitialWeights:
    """Return the weights of a file for a backbone.

    Read are ``.safetensors`` files and files of ``torch.save``: of
    torchvision, timm, MMPretrain, MMSelfSup and this package; a backbone, or
    a model with a backbone. No code in them is executed. The names of a ViT
    or Swin are converted, and the position embedding of a ViT of MMPretrain
    is resized. The backbone is not changed.

    Args:
        path (str): File, or a URL ``http(s)://`` or ``torchvision://``.
        backbone (nn.Module): Network to be initialized.
        partial (bool): Accept a file of which only a part fits.
        prefix (str, optional): Prefix of the names to be used, as in
            MMEngine's ``Pretrained``. Found automatically by default.
        only_structure (bool): Return tensors without data, on the meta
            device.

    Raises:
        FileNotFoundError: The file does not exist.
        CheckpointError: It cannot be read, or is not of this network. One
            line; the error is a ValueError.
    """
    weights, ignored, names = _find_weights(
        path, _read(path, only_structure), backbone, prefix)
    if only_structure:
        weights = {name: x.to('meta') for name, x in weights.items()}
    own = backbone.state_dict()
    outer = _TIMM if all(x.startswith(_TIMM) for x in own) else ''
    inner = {name[len(outer):] for name in own}
    package, network = names_of(inner)
    theirs = names_of(weights)
    if theirs[1] and network and theirs[1] != network:
        raise CheckpointError(
            f"'{printable(path)}' has the weights of a {theirs[1]} ({names}), "
            f'but the backbone is a {network}: give weights of a {network}, '
            f'or choose a backbone that is a {theirs[1]}')
    convert = to_timm if package == 'timm' else from_timm
    weights = {outer + name: x for name, x in convert(weights).items()}
    heads = {name for name in weights if name not in own
             and name[len(outer):].split('.')[0] in _HEADS}
    ignored += sorted({x[len(outer):].split('.')[0] for x in heads})
    found = _compare(path, {name: x for name, x in weights.items()
                            if name not in heads}, backbone, names, ignored)
    if not found.state_dict:
        raise CheckpointError(
            f"no weight in '{printable(path)}' fits the backbone: the file "
            f'has {_first(weights)}, the backbone {_first(own)}: give weights '
            'of the same network')
    if not partial:
        found.check()
    return found


def save_initial_weights(weights: InitialWeights,
                         out: Union[str, os.PathLike]) -> None:
    """Write weights with the names of the backbone, atomically.

    The file is a dict with ``state_dict`` and, in ``meta``, the name of the
    source.
    """
    content = dict(state_dict=dict(weights.state_dict), meta=dict(
        source=Path(weights.path).name, names=weights.names))
    with atomic_write(out) as file:
        torch.save(content, file)


def _read(path: str, only_structure: bool) -> Any:
    """Return the content of a file."""
    if '://' in path:
        return load_url(path)
    path = os.path.expanduser(path)
    if not path.endswith('.safetensors'):
        return load(path, only_structure=only_structure)
    if not os.path.exists(path):
        raise FileNotFoundError(
            f"there is no file '{printable(path)}': check the path")
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise CheckpointError(
            f"'{printable(path)}' needs the package safetensors: "
            "'pip install safetensors'") from None
    try:
        return load_file(path)
    except SafetensorError as e:
        raise CheckpointError(f"'{printable(path)}' is damaged, or no "
                              f'safetensors file ({printable(e)}): copy it '
                              'again') from None


def _find_weights(path: str, content: Any, backbone: nn.Module,
                  prefix: Optional[str]) -> tuple[dict, list[str], str]:
    """Return the tensors of a backbone in a file.

    Returns:
        tuple[dict, list[str], str]: Tensors without the prefix of the
        backbone; first parts of the other names; whose names they are.
    """
    weights = content
    for key in ('state_dict', 'model'):
        if isinstance(weights, dict) and isinstance(weights.get(key), dict):
            weights = weights[key]
    if not isinstance(weights, dict):
        raise CheckpointError(
            f"'{printable(path)}' has no weights, but is a "
            f'{type(weights).__name__}: give a state dict')
    weights = {name: x for name, x in weights.items()
               if isinstance(name, str) and isinstance(x, Tensor)}
    if not weights:
        is_optimizer = 'optimizer' in content or 'param_groups' in content
        what = 'only the state of an optimizer' if is_optimizer else (
            f'only {_first(content)}' if content else 'nothing')
        raise CheckpointError(
            f"'{printable(path)}' has no weights, {what}: give the "
            'state dict of a network')
    for wrapper in _WRAPPERS:
        if all(name.startswith(wrapper) for name in weights):
            weights = _without(wrapper, weights)
    whose = 'the names of the backbone'
    if prefix:
        prefix = f'{prefix.rstrip(".")}.'
    elif (any(x.startswith('backbone.') for x in weights) and not
            any(x.startswith('backbone.') for x in backbone.state_dict())):
        prefix = 'backbone.'
    inner = _without(prefix, weights) if prefix else weights
    if not inner:
        raise CheckpointError(
            f"'{printable(path)}' has no weights '{printable(prefix)}*', but "
            f'{_first(weights)}: correct the prefix')
    others = {x.split('.')[0] for x in weights if prefix and not
              x.startswith(prefix)}
    if all(name.startswith(_TIMM) for name in inner):
        inner, whose = _without(_TIMM, inner), 'timm names'
    if package := names_of(inner)[0]:
        whose = f'{package} names'
    return inner, sorted(others), whose


def _compare(path: str, weights: dict[str, Tensor], backbone: nn.Module,
             names: str, ignored: list[str]) -> InitialWeights:
    """Compare the weights of a file with those of a backbone."""
    own = backbone.state_dict()
    fits, mismatched = {}, []
    for name in own.keys() & weights.keys():
        value = weights[name]
        if value.shape != own[name].shape and name == 'pos_embed':
            value = _resize(value, backbone)
        if value.shape == own[name].shape:
            fits[name] = value
        else:
            mismatched.append(name)
    absent = [name for name in own if name not in weights]
    # num_batches_tracked, relative_position_index
    missing = [x for x in absent if own[x].is_floating_point()]
    return InitialWeights(
        path, {name: fits[name] for name in own if name in fits}, names,
        len(own) - len(absent) + len(missing), missing,
        [name for name in weights if name not in own], sorted(mismatched),
        ignored)


def _resize(value: Tensor, backbone: nn.Module) -> Tensor:
    """Resize a position embedding (1, N, C), if it is one of a square grid.

    MMPretrain's ``VisionTransformer`` would do the same while it loads.
    """
    resize = getattr(backbone, 'resize_pos_embed', None)
    extra = getattr(backbone, 'num_extra_tokens', 0)
    if resize is None or value.ndim != 3:
        return value
    side = round(max(value.shape[1] - extra, 0)**0.5)
    if side == 0 or side**2 + extra != value.shape[1]:
        return value
    return resize(value, (side, side), backbone.patch_embed.init_out_size,
                  backbone.interpolate_mode, extra)


def _without(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights with a prefix, without it."""
    return {name[len(prefix):]: x for name, x in weights.items()
            if name.startswith(prefix)}


def _first(names: Iterable) -> str:
    """Return the first two names, for a message."""
    names = list(names)
    return ', '.join(printable(x)[:60] for x in names[:2]) + (
        ', ...' if len(names) > 2 else '')
