import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from tiny import error_of, run_tool, univip_config, write_config

from univip_mm.engine.weights_check import check_init_cfg, check_weights_fit
from univip_mm.registry import MODELS


def built(backbone=None, **options):
    """Return the config and the model of a tiny UniVIP."""
    model = univip_config(4, 16)
    model['backbone'] = {**(backbone or model['backbone']), **options}
    cfg = Config(dict(model=model, default_scope='univip_mm'))
    with DefaultScope.overwrite_default_scope('univip_mm'):
        return cfg, MODELS.build(cfg.model)


@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_check_weights_fit_needs_one_weight(tmp_path, prefix):
    model = torch.nn.Linear(2, 2, bias=False)
    path = str(tmp_path / 'a.pth')
    cfg = Config(dict(load_from=path))
    torch.save({f'{prefix}weight': torch.ones(2, 2)}, path)
    check_weights_fit(cfg, model)
    torch.save(dict(state_dict={f'{prefix}conv.weight': torch.ones(1)}), path)
    with pytest.raises(ValueError, match='no weight in .*a.pth. belongs to '
                       rf'this model \(the file has {prefix}conv.weight'):
        check_weights_fit(cfg, model)


def test_check_weights_fit_accepts_other_parts(tmp_path):
    cfg, model = built()
    cfg.load_from = str(tmp_path / 'a.pth')
    weights = model.state_dict()
    for name in list(weights):
        if not name.startswith('backbone.') or 'num_batches' in name:
            del weights[name]
    torch.save(dict(state_dict=weights), cfg.load_from)
    check_weights_fit(cfg, model)  # reported by ChangedRunHook


@pytest.mark.parametrize('depth', [34, 50])
def test_check_weights_fit_refuses_other_backbone(tmp_path, depth):
    cfg, model = built()
    cfg.load_from = str(tmp_path / 'a.pth')
    torch.save(built(depth=depth)[1].state_dict(), cfg.load_from)
    with pytest.raises(ValueError, match=r"a.pth' is another one .*: \d+ "
                       "tensors differ, for example 'backbone.layer1"):
        check_weights_fit(cfg, model)
    cfg.resume = True  # refused by the hook of the resume
    check_weights_fit(cfg, model)


@pytest.mark.parametrize('as_list', [False, True])
def test_check_init_cfg_names_key(tmp_path, as_list):
    init = dict(type='Pretrained', checkpoint=str(tmp_path / 'a.pth'))
    cfg, model = built(init_cfg=[init] if as_list else init)
    with pytest.raises(FileNotFoundError, match='a.pth'):
        check_init_cfg(cfg, model)
    torch.save(model.backbone.state_dict(), init['checkpoint'])
    check_init_cfg(cfg, model)
    torch.save(dict(x=torch.ones(1)), init['checkpoint'])
    with pytest.raises(ValueError, match=r'^model\.backbone\.init_cfg.*: no '
                       "weight in .*a.pth' fits the backbone"):
        check_init_cfg(cfg, model)
    cfg.default_scope = 'mmpretrain'  # loaded by MMEngine
    check_init_cfg(cfg, model)


def test_check_init_cfg_refuses_list_of_vit(tmp_path):
    vit = dict(type='VisionTransformer', img_size=32, arch=dict(
        embed_dims=64, num_layers=1, num_heads=2, feedforward_channels=8))
    cfg, model = built(vit, init_cfg=None)
    path = str(tmp_path / 'a.pth')
    torch.save(model.backbone.state_dict(), path)
    init = dict(type='Pretrained', checkpoint=path)
    cfg, model = built(vit, init_cfg=init)
    check_init_cfg(cfg, model)
    cfg, model = built(vit, init_cfg=[init])
    with pytest.raises(ValueError, match='init_cfg.0: .*one dict'):
        check_init_cfg(cfg, model)


def test_train_checks_and_reports_init_cfg(coco_folder, tmp_path):
    config = write_config(coco_folder)
    path = tmp_path / 'init.pth'
    weights = MODELS.build(Config.fromfile(config).model.backbone).state_dict()
    options = ['--work-dir', tmp_path / 'out', '--cfg-options',
               'model.backbone.init_cfg.type=Pretrained',
               f'model.backbone.init_cfg.checkpoint={path}',
               'train_cfg.max_epochs=1']
    torch.save({**weights, 'layer5.0.conv1.weight': torch.ones(1)}, path)
    message = error_of('train', config, *options)
    assert 'model.backbone.init_cfg: ' in message
    assert 'fits only in part' in message
    torch.save(weights, path)
    run_tool('train', config, *options)
    logs = [x.read_text() for x in (tmp_path / 'out').glob('*/*.log')]
    assert any(f"120/120 tensors loaded from '{path}'" in x for x in logs)
