"""Backbones of the online and the target branch of BYOL and UniVIP."""
from torch import nn

# Prefix of the backbone in the state dict of the model. The target branch is
# a Sequential of backbone and projector inside the averaged model.
BRANCHES = dict(online='backbone.', target='target_net.module.0.')


def backbone_of(model: nn.Module, branch: str) -> nn.Module:
    """Return the backbone of the 'online' or 'target' branch of a BYOL model.

    Raises:
        ValueError: The model has no such branch, or is still wrapped for
            distributed training.
    """
    try:
        return model.get_submodule(BRANCHES[branch].rstrip('.'))
    except (AttributeError, KeyError):
        raise ValueError(
            f"{type(model).__name__} has no '{branch}' backbone, which UniVIP "
            f'and BYOL have: choose another branch of {", ".join(BRANCHES)}, '
            'or another model') from None
