import pytest
from tiny import univip_config
from torch import nn

from univip_mm.engine.branches import BRANCHES, backbone_of
from univip_mm.registry import MODELS


@pytest.mark.parametrize('branch', BRANCHES)
def test_backbone_of_matches_prefix_of_state_dict(branch, univip_scope):
    model = MODELS.build(univip_config(2, 8))
    backbone = backbone_of(model, branch)
    state = model.state_dict(prefix='', keep_vars=True)
    for name, weight in backbone.state_dict(keep_vars=True).items():
        assert state[BRANCHES[branch] + name] is weight


@pytest.mark.parametrize('branch', ['target', 'both'])
def test_backbone_of_names_missing_branch(branch):
    model = nn.ModuleDict(dict(backbone=nn.Identity()))
    assert backbone_of(model, 'online') is model.backbone
    with pytest.raises(ValueError, match=f"ModuleDict has no '{branch}' back"):
        backbone_of(model, branch)
