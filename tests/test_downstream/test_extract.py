import pytest
import torch
import torchvision

from univip_mm.downstream.extract import extract_backbone


def univip_weights():
    """Return weights whose values identify the branch, and their names."""
    resnet = torchvision.models.resnet18(num_classes=1).state_dict()
    names = [name for name in resnet if not name.startswith('fc.')]
    weights = {}
    for prefix, value in {'backbone.': 1, 'target_net.module.0.': 2,
                          'neck.': 3, 'target_net.module.1.': 4}.items():
        for name in names:
            weights[prefix + name] = torch.full_like(resnet[name], value)
    return weights, names


@pytest.mark.parametrize('branch, value', [('online', 1), ('target', 2)])
def test_extract_backbone_returns_weights_of_branch(branch, value):
    weights, names = univip_weights()
    backbone = extract_backbone(dict(state_dict=weights), branch)
    assert list(backbone) == names
    assert all((tensor == value).all() for tensor in backbone.values())


def test_extract_backbone_accepts_state_dict():
    weights, names = univip_weights()
    assert list(extract_backbone(weights)) == names


def test_extract_backbone_rejects_unknown_branch():
    with pytest.raises(ValueError, match='online, target'):
        extract_backbone({}, 'middle')


def test_extract_backbone_names_found_weights():
    with pytest.raises(ValueError, match=r"has no 'backbone\.\*'.*'head'"):
        extract_backbone(dict(state_dict={'head.fc.weight': torch.ones(1)}))
