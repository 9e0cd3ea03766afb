"""Initialization with convolution filters whose sum is zero."""
import torch
from mmengine.model.weight_init import update_init_info
from torch import nn

from ..registry import WEIGHT_INITIALIZERS


@torch.no_grad()
def make_zero_sum(module: nn.Module) -> None:
    """Subtract the mean of each convolution filter, in place.

    The inputs of most layers are not negative. A random filter whose sum is
    not zero responds to their mean, and all channels then vary together, with
    the strength of the input. How much depends on the random numbers. Filters
    with the sum zero respond to differences only. The standard deviation of
    the weights of a layer stays the same.

    Filters of one weight, as in a depthwise 1 x 1 convolution, stay as they
    are.

    Args:
        module (nn.Module): Module whose ``nn.Conv1d`` to ``nn.Conv3d`` are
            changed, itself included.
    """
    for layer in module.modules():
        if not isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            continue
        weight = layer.weight
        if weight[0].numel() > 1:
            scale = weight.std()
            weight -= weight.flatten(1).mean(1).view(
                -1, *[1] * (weight.ndim - 1))
            weight *= scale / weight.std()


@WEIGHT_INITIALIZERS.register_module(name='ZeroSum')
class ZeroSumInit:
    """Initialization that makes the sum of each convolution filter zero.

    It changes the weights that other initializations have set, so it is the
    last of a list::

        backbone=dict(init_cfg=[
            dict(type='Kaiming', layer='Conv2d'),
            dict(type='Constant', val=1, layer=['_BatchNorm', 'GroupNorm']),
            dict(type='ZeroSum')])

    Untrained features then have more directions, and depend less on the seed:
    see docs/results.md.
    """

    def __call__(self, module: nn.Module) -> None:
        """Change the filters of the module, and report it in the log."""
        make_zero_sum(module)
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info='ZeroSum: the sum of each '
                             'convolution filter is zero')
