"""Backbones of the online and the target branch of BYOL and UniVIP."""
from torch import nn

# Prefix of the backbone in the state dict of the model. The target branch is
# a Sequential of backbone and projector inside the averaged model.
BRANCHES = dict(online='backbone.', target='target_net.module.0.')


def backbone_of(model: nn.Module, branch: str) -> nn.Module:
    """Return the backbone of one branch of UniVIP, or of another BYOL model.

    Args:
        model (nn.Module): Model without a distributed wrapper.
        branch (str): 'online' or 'target'.

    Raises:
        ValueError: The model has no such branch.
    """
    try:
        return model.get_submodule(BRANCHES[branch].rstrip('.'))
    except (AttributeError, KeyError):
        raise ValueError(
            f"{type(model).__name__} has no '{branch}' backbone, which UniVIP "
            f'and BYOL have: choose another branch of {", ".join(BRANCHES)}, '
            'or another model') from None
