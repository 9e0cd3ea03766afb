"""Checkpoints of UniVIP with a given backbone, without a training."""
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from univip_mm.registry import MODELS


def random_backbone(config):
    """Return a backbone in eval mode with random weights and statistics."""
    generator = torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('univip_mm'):
        backbone = MODELS.build(config)
    with torch.no_grad():
        for name, value in backbone.named_buffers():
            if name.endswith('running_mean'):
                value.normal_(std=0.1, generator=generator)
            elif name.endswith('running_var'):
                value.uniform_(0.5, 2, generator=generator)
        for value in backbone.parameters():
            if value.ndim == 1:
                value.add_(torch.rand(value.shape, generator=generator) * 0.1)
    backbone.eval()  # eval() of the host returns None
    return backbone


def write_checkpoint(backbone, path, config=None, **model):
    """Write a checkpoint whose target branch is zero; return its path.

    With ``config``, that of the backbone, the checkpoint has the text of a
    whole config. ``model`` are further keys of its model.
    """
    weights = {}
    for name, value in backbone.state_dict().items():
        weights[f'backbone.{name}'] = value
        weights[f'target_net.module.0.{name}'] = torch.zeros_like(value)
    meta = dict(epoch=3, iter=12)
    if config is not None:
        cfg = Config(dict(model=dict(model, type='UniVIP', backbone=config)))
        meta['cfg'] = cfg.pretty_text
    hub = dict(log_scalars={}, runtime_info={}, resumed_keys={})
    torch.save(dict(state_dict=weights, meta=meta, message_hub=hub), path)
    return path
