import pytest
import torch
from tiny import demo_config, error_of, write_config

from univip_mm.engine.graph_check import check_graph

needs_graph = pytest.mark.skipif(
    not hasattr(torch, 'get_autocast_dtype'), reason='needs PyTorch 2.4')


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)


def config(**changes):
    return demo_config('univip_r50_coco.py', **{
        'model.graph': 'cuda_graph', **changes})


@needs_graph
def test_graph_check_accepts_the_recipe(gpu):
    check_graph(config())
    check_graph(config(model_wrapper_cfg=dict(
        type='MMDistributedDataParallel', broadcast_buffers=False)))


@needs_graph
@pytest.mark.parametrize('key, value, cure', [
    ('train_dataloader.drop_last', False, 'set train_dataloader.drop_last'),
    ('compile', True, 'remove compile'),
    ('model_wrapper_cfg', dict(type='MMFullyShardedDataParallel'),
     'use MMDistributedDataParallel'),
    ('model.backbone.with_cp', True, 'set with_cp=False'),
    ('model.graph', 'fast', "must be None, 'cuda_graph'")])
def test_graph_check_names_the_cure(gpu, key, value, cure):
    with pytest.raises(ValueError, match=cure):
        check_graph(config(**{key: value}))
    if key != 'model.graph':
        check_graph(config(**{key: value, 'model.graph': None}))


@pytest.mark.skipif(torch.cuda.is_available(), reason='needs no GPU')
def test_train_refuses_a_graph_without_gpu(coco_folder, tmp_path):
    message = error_of(
        'train', write_config(coco_folder), '--work-dir', tmp_path,
        '--cfg-options', 'model.graph=inductor')
    assert message == ("error: model.graph='inductor' needs a GPU and there "
                       'is none: set model.graph=None')
