import logging

import pytest
import torch
from mmengine.model.weight_init import PretrainedInit
from tiny import univip_config

from univip_mm.engine.pretrained_init import CheckedPretrainedInit
from univip_mm.registry import MODELS, WEIGHT_INITIALIZERS

pytestmark = pytest.mark.usefixtures('univip_scope')


@pytest.fixture
def lines(monkeypatch):
    """Return the lines of the log, with their levels."""
    found = []
    monkeypatch.setattr(
        'univip_mm.engine.pretrained_init.print_log',
        lambda text, logger, level: found.append((text, level)))
    return found


def backbone(**options):
    cfg = univip_config(4, 16)['backbone']
    return MODELS.build({**cfg, **options})


@pytest.fixture
def saved(tmp_path):
    """Return a file of random weights, and the weights."""
    weights = {
        name: torch.rand_like(x) + 0.5 if x.is_floating_point() else x + 7
        for name, x in backbone().state_dict().items()}
    torch.save(weights, tmp_path / 'a.pth')
    return str(tmp_path / 'a.pth'), weights


def pretrained(path, **options):
    return dict(type='Pretrained', checkpoint=path, **options)


def test_other_scopes_keep_their_initializer():
    assert WEIGHT_INITIALIZERS.get('Pretrained') is CheckedPretrainedInit
    parent = WEIGHT_INITIALIZERS.parent
    assert parent.get('Pretrained') is PretrainedInit


def test_branches_start_with_the_weights(saved, lines):
    path, weights = saved
    cfg = univip_config(4, 16)
    cfg['backbone']['init_cfg'] = pretrained(path)
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    model.init_weights()
    (line, level), = lines
    assert line.startswith(f"120/120 tensors loaded from '{path}'")
    assert level == logging.INFO
    online = torch.nn.Sequential(model.backbone, model.neck)
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, weights[name]), name
    compared = []

    def compare(*views):
        """Compare at the moment when the target is first used."""
        target = model.target_net.module.state_dict()
        assert target.keys() == online.state_dict().keys()
        for name, value in online.state_dict().items():
            # count_batches counts the three passes of each branch later.
            if not name.endswith('num_batches_tracked'):
                assert torch.equal(target[name], value), name
            compared.append(name)
        return type(model).forward_target(model, *views)

    model.forward_target = compare
    model.loss([torch.randn(2, 3, 32, 32) for _ in range(6)])
    assert 'layer4.1.conv2.weight' in ''.join(compared)
    assert '1.fc0.weight' in compared


def test_partial_is_logged_as_warning(saved, lines):
    network = backbone(depth=34, init_cfg=pretrained(saved[0], partial=True))
    network.init_weights()
    (line, level), = lines
    assert line.startswith('120/200 tensors') and level == logging.WARNING
    assert torch.equal(network.conv1.weight, saved[1]['conv1.weight'])


def test_part_of_the_backbone_is_refused(saved, lines):
    network = backbone(depth=34, init_cfg=pretrained(saved[0]))
    with pytest.raises(ValueError, match='120 of 200 tensors'):
        network.init_weights()
    assert not lines


def test_prefix_selects_weights(saved, lines, tmp_path):
    path, weights = str(tmp_path / 'b.pth'), saved[1]
    torch.save({f'teacher.{name}': x for name, x in weights.items()}, path)
    network = backbone(init_cfg=pretrained(path, prefix='teacher.'))
    network.init_weights()
    assert torch.equal(network.conv1.weight, weights['conv1.weight'])
    network = backbone(init_cfg=pretrained(path, prefix='student.'))
    with pytest.raises(ValueError, match=r"no weights 'student\.\*', but "
                       'teacher.conv1.weight.*: correct the prefix'):
        network.init_weights()
