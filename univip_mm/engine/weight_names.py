"""Names of weights in MMPretrain, timm and torchvision, and their conversion.

A ResNet has the same names in the three packages. The names of a ViT and of a
Swin differ; timm's are the form in between: MMPretrain <-> timm <-
torchvision. The functions take and return state dicts of a backbone, without
a prefix such as ``backbone.``. No tensor is copied, except the two of a
Swin's patch merging, whose channels MMPretrain orders differently.
"""
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping

from torch import Tensor

# Pairs of prefixes; N is a number.
_VIT = [  # MMPretrain, timm
    ('patch_embed.projection.', 'patch_embed.proj.'),
    ('pre_norm.', 'norm_pre.'),
    ('layers.N.ln1.', 'blocks.N.norm1.'),
    ('layers.N.ln2.', 'blocks.N.norm2.'),
    ('layers.N.ffn.layers.0.0.', 'blocks.N.mlp.fc1.'),
    ('layers.N.ffn.layers.1.', 'blocks.N.mlp.fc2.'),
    ('layers.N.attn.gamma1.weight', 'blocks.N.ls1.gamma'),
    ('layers.N.ffn.gamma2.weight', 'blocks.N.ls2.gamma'),
    ('layers.N.', 'blocks.N.'),
    ('ln1.', 'norm.'),
    ('ln2.', 'fc_norm.'),
]
_SWIN = [  # MMPretrain, timm
    ('patch_embed.projection.', 'patch_embed.proj.'),
    ('stages.N.blocks.N.attn.w_msa.', 'layers.N.blocks.N.attn.'),
    ('stages.N.blocks.N.ffn.layers.0.0.', 'layers.N.blocks.N.mlp.fc1.'),
    ('stages.N.blocks.N.ffn.layers.1.', 'layers.N.blocks.N.mlp.fc2.'),
    ('stages.N.', 'layers.N.'),
    ('norm3.', 'norm.'),
]
_TORCHVISION_VIT = [  # torchvision, timm
    ('class_token', 'cls_token'),
    ('encoder.pos_embedding', 'pos_embed'),
    ('conv_proj.', 'patch_embed.proj.'),
    *((f'encoder.layers.encoder_layer_N.{theirs}', f'blocks.N.{ours}')
      for theirs, ours in (
          ('ln_1.', 'norm1.'), ('ln_2.', 'norm2.'),
          ('self_attention.in_proj_', 'attn.qkv.'),
          ('self_attention.out_proj.', 'attn.proj.'),
          ('mlp.0.', 'mlp.fc1.'), ('mlp.3.', 'mlp.fc2.'),
          # torchvision 0.12
          ('mlp.linear_1.', 'mlp.fc1.'), ('mlp.linear_2.', 'mlp.fc2.'))),
    ('encoder.ln.', 'norm.'),
    ('heads.', ''),
]
_TORCHVISION_SWIN = [  # torchvision, timm; stages are numbered afterwards
    ('features.0.0.', 'patch_embed.proj.'),
    ('features.0.2.', 'patch_embed.norm.'),
    ('features.N.N.mlp.0.', 'features.N.blocks.N.mlp.fc1.'),
    ('features.N.N.mlp.3.', 'features.N.blocks.N.mlp.fc2.'),
    ('features.N.N.', 'features.N.blocks.N.'),
    ('features.N.', 'features.N.downsample.'),
]
# Names that only this network in this package has, in this order.
_MARKS = [
    ('layers.0.ffn.layers.0.0.weight', 'MMPretrain', 'ViT'),
    ('blocks.0.attn.qkv.weight', 'timm', 'ViT'),
    ('encoder.layers.encoder_layer_0.ln_1.weight', 'torchvision', 'ViT'),
    ('stages.0.blocks.0.attn.w_msa.qkv.weight', 'MMPretrain', 'Swin'),
    ('layers.0.blocks.0.attn.qkv.weight', 'timm', 'Swin'),
    ('features.1.0.attn.qkv.weight', 'torchvision', 'Swin'),
    ('layer1.0.conv1.weight', 'torchvision', 'ResNet'),
]
_MERGING = re.compile(
    r'(?:stages|layers)\.(\d+)\.downsample\.(norm\.weight|norm\.bias|'
    r'reduction\.weight)$')
# Computed from the window size; timm does not store it.
_INDEX = 'relative_position_index'


def names_of(weights: Iterable[str]) -> tuple[str, str]:
    """Return the package and the network of a state dict's names.

    Args:
        weights (Iterable[str]): Names, or the state dict itself.

    Returns:
        tuple[str, str]: 'MMPretrain', 'timm' or 'torchvision'; and 'ViT',
        'Swin' or 'ResNet', whose names are the same in all packages
        ('torchvision'). Two empty strings for other names.
    """
    names = set(weights)
    return next(((package, network) for mark, package, network in _MARKS
                 if mark in names), ('', ''))


def to_timm(weights: Mapping[str, Tensor]) -> OrderedDict:
    """Return a state dict with the names of timm 1.0.

    The names of a ViT or Swin of MMPretrain or torchvision are converted.
    Other state dicts, also a ResNet's, are returned as they are.
    """
    package, network = names_of(weights)
    if package == 'torchvision' and network != 'ResNet':
        return _from_torchvision(weights, network)
    if package != 'MMPretrain':
        return OrderedDict(weights)
    table = _VIT if network == 'ViT' else _SWIN
    renamed = OrderedDict()
    for name, value in weights.items():
        if name.endswith(_INDEX):
            continue
        name = _rename(name, table)
        if network == 'Swin' and (match := _MERGING.match(name)):
            value = _merging_to_timm(value)
            name = f'layers.{int(match[1]) + 1}.downsample.{match[2]}'
        renamed[name] = value
    return renamed


def from_timm(weights: Mapping[str, Tensor]) -> OrderedDict:
    """Return a state dict with the names of MMPretrain.

    The names of a ViT or Swin of timm or torchvision are converted, also
    those of a Swin of timm before 0.9. Other state dicts, also a ResNet's,
    are returned as they are.
    """
    package, network = names_of(weights)
    if package == 'torchvision' and network != 'ResNet':
        weights, package = _from_torchvision(weights, network), 'timm'
    if package != 'timm':
        return OrderedDict(weights)
    table = [pair[::-1] for pair in (_VIT if network == 'ViT' else _SWIN)]
    # Since timm 0.9, a stage begins with the merging, before it ended so.
    shift = 'layers.0.downsample.reduction.weight' not in weights
    renamed = OrderedDict()
    for name, value in weights.items():
        if name.endswith(_INDEX):
            continue
        if network == 'Swin' and (match := _MERGING.match(name)):
            value = _merging_from_timm(value)
            name = f'layers.{int(match[1]) - shift}.downsample.{match[2]}'
        renamed[_rename(name, table)] = value
    return renamed


def _from_torchvision(weights: Mapping[str, Tensor],
                      network: str) -> OrderedDict:
    """Return a ViT or Swin of torchvision with timm's names."""
    if network == 'ViT':
        return OrderedDict((_rename(name, _TORCHVISION_VIT), value)
                           for name, value in weights.items())
    renamed = OrderedDict()
    for name, value in weights.items():
        # features.1 is stage 0, features.2 the merging before stage 1, ...
        name = re.sub(
            r'^features\.(\d+)', lambda x: f'layers.{int(x[1]) // 2}',
            _rename(name, _TORCHVISION_SWIN))
        if not name.endswith(_INDEX):
            renamed[name] = value
    return renamed


def _rename(name: str, table: list[tuple[str, str]]) -> str:
    """Replace the prefix of a name by that of the first pair that fits."""
    for old, new in table:
        pattern = re.escape(old).replace('N', r'(\d+)')
        if match := re.match(pattern, name):
            numbers = iter(match.groups())
            prefix = re.sub('N', lambda _, x=numbers: next(x), new)
            return prefix + name[match.end():]
    return name


def _merging_from_timm(value: Tensor) -> Tensor:
    """Order the last axis by (channel, row, column) for MMPretrain.

    A patch merging joins 2x2 pixels of C channels, 4C numbers. timm and
    torchvision order them by (column, row, channel).
    """
    return value.unflatten(-1, (2, 2, -1)).movedim(
        (-1, -2, -3), (-3, -2, -1)).flatten(-3)


def _merging_to_timm(value: Tensor) -> Tensor:
    """Reverse :func:`_merging_from_timm`."""
    return value.unflatten(-1, (-1, 2, 2)).movedim(
        (-1, -2, -3), (-3, -2, -1)).flatten(-3)
