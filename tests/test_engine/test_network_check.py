import pytest
from tiny import CONFIGS, demo_config

from univip_mm.engine.network_check import check_network

CROP = 'train_dataloader.dataset.pipeline.1'


@pytest.mark.parametrize('path', sorted(CONFIGS.glob('*.py')),
                         ids=lambda path: path.name)
def test_check_network_accepts_all_configs(path):
    check_network(demo_config(path.name))


@pytest.mark.parametrize('changes, message', [
    ({'train_dataloader.batch_size': 1},
     'model.neck cannot be run .*train_dataloader.batch_size = 1'),
    ({'model.neck.in_channels': 512}, 'model.neck.in_channels'),
    ({'model.head.predictor.in_channels': 128},
     'check model.head.predictor.in_channels'),
    ({'model.fusion_neck.in_channels': 128},
     'check model.fusion_neck.in_channels'),
    ({'model.fusion_neck.out_channels': 128},
     'fusion_neck gives 128 channels and model.head.predictor 256'),
    ({'model.backbone': dict(_delete_=True, type='AlexNet'),
      f'{CROP}.scene_size': 16}, r'model.backbone cannot .*scene_size = 16'),
    ({'model.backbone': dict(_delete_=True, type='VGG', depth=11),
      'model.neck.in_channels': 512, f'{CROP}.instance_size': 16},
     r'model.backbone cannot .*instance_size = 16'),
])
def test_check_network_names_keys(changes, message):
    with pytest.raises(ValueError, match=message) as e:
        check_network(demo_config(**changes))
    assert '\n' not in str(e.value)


def test_check_network_accepts_single_pixel():
    check_network(demo_config(**{f'{CROP}.instance_size': 1}))


def test_check_network_pools_sync_bn_batches():
    cfg = demo_config('univip_r50_coco.py',
                      **{'train_dataloader.batch_size': 1})
    with pytest.raises(ValueError, match='batch_size = 1'):
        check_network(cfg)
    cfg.launcher = 'pytorch'
    check_network(cfg)


def test_check_network_names_missing_part():
    cfg = demo_config()
    del cfg.model['neck']
    with pytest.raises(ValueError, match='has no model.neck'):
        check_network(cfg)
