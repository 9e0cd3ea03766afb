"""Tests of all benchmark configs: build, pre-trained weights, forward."""
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from benchmark_runs import BENCHMARKS
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, TRANSFORMS, DefaultScope
from mmengine.structures import BaseDataElement
from PIL import Image

from univip_mm.downstream.backbone import (
    check_fit,
    find_backbone,
    pretrained_options,
    pretrained_parts,
)
from univip_mm.downstream.launch import parse_options

CONFIGS = sorted(BENCHMARKS.glob('*/*.py'))
IDS = [f'{x.parent.name}/{x.stem}' for x in CONFIGS]


@pytest.fixture(scope='module')
def univip50(tmp_path_factory):
    """Return a checkpoint of a ResNet-50 UniVIP with distinct weights."""
    cfg = Config.fromfile(BENCHMARKS.parent / 'univip_r50_coco.py').model
    cfg.neck.hid_channels = cfg.head.predictor.hid_channels = 32
    with DefaultScope.overwrite_default_scope('univip_mm'):
        model = MODELS.build(cfg)
    generator = torch.manual_seed(0)
    with torch.no_grad():
        for value in model.backbone.buffers():
            if value.is_floating_point():
                value.add_(torch.rand(value.shape, generator=generator))
    path = tmp_path_factory.mktemp('univip50') / 'epoch_800.pth'
    torch.save(
        dict(state_dict=model.state_dict(), meta=dict(epoch=800, iter=1)),
        path)
    return str(path)


@pytest.fixture(scope='module')
def backbone(univip50):
    return find_backbone(univip50, Path(univip50).parent / 'out')


def module_of(model, part):
    for name in part.split('.')[1:]:
        model = getattr(model, name)
    return model


def initialize(path, file):
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(parse_options(pretrained_options(cfg, file)))
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
        for part in pretrained_parts(cfg):
            module_of(model, part).init_weights()
    return cfg, model


@pytest.mark.parametrize('path', CONFIGS, ids=IDS)
def test_config_loads_all_weights_of_checkpoint(path, backbone):
    file, weights = backbone
    cfg, model = initialize(path, file)
    check_fit(cfg, weights)
    loaded = OrderedDict()
    for part in pretrained_parts(cfg):
        loaded.update(module_of(model, part).state_dict())
    extra = {x for x in loaded if x not in weights}
    assert all(name.startswith('norm.') for name in extra)  # only in C4 heads
    assert bool(extra) == ('c4' in path.stem)
    assert not set(weights) - set(loaded)
    for name, value in weights.items():
        assert torch.equal(loaded[name], value), name


@pytest.mark.parametrize('path', CONFIGS, ids=IDS)
def test_config_model_forward(path):
    cfg = Config.fromfile(path)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model).eval()
        side = 224 if path.parent.name == 'classification' else 96
        with torch.no_grad():
            if path.parent.name == 'mmdetection':
                from mmdet.testing import demo_mm_inputs
                inputs = model.data_preprocessor(
                    demo_mm_inputs(1, [(3, side, side)]), False)
                found, = model(**inputs, mode='predict')
                assert found.pred_instances.bboxes.shape[1] == 4
                return
            features = model.extract_feat(torch.randn(1, 3, side, side))
            if path.parent.name == 'mmsegmentation':
                logits = model.decode_head(features)
                assert logits.shape[1] == cfg.model.decode_head.num_classes
            elif hasattr(model.head, 'loss'):
                logits = model.head(features)
                logits = logits if isinstance(logits, list) else [logits]
                assert all(x.shape[0] == 1 and x.isfinite().all()
                           for x in logits)
            else:
                sample, = model.head.predict(features, [BaseDataElement()])
                assert sample.feature.isfinite().all()


@pytest.mark.parametrize(
    'path', [x for x in CONFIGS if 'mmdet' in str(x) or 'mmseg' in str(x)],
    ids=lambda x: x.stem)
def test_detectors_and_segmentors_train_all_layers(path):
    """The protocol freezes no stage and no statistics, and uses SyncBN."""
    cfg = Config.fromfile(path)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model).train()
    assert all(x.requires_grad for x in model.parameters())
    norms = [x for x in model.backbone.modules()
             if isinstance(x, torch.nn.modules.batchnorm._BatchNorm)]
    assert norms and all(x.training for x in norms)
    assert all(isinstance(x, torch.nn.SyncBatchNorm) for x in norms)


@pytest.mark.parametrize(
    'path', [x for x in CONFIGS if 'linear' in x.stem or 'mhead' in x.stem],
    ids=lambda x: x.stem)
def test_linear_configs_freeze_backbone(path):
    cfg = Config.fromfile(path)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model).train()
    assert not any(x.requires_grad for x in model.backbone.parameters())
    assert not any(x.training for x in model.backbone.modules()
                   if isinstance(x, torch.nn.BatchNorm2d))
    assert all(x.requires_grad for x in model.head.parameters())


@pytest.mark.parametrize(
    'path', [x for x in CONFIGS if 'linear' in x.stem or 'mhead' in x.stem
             or 'semi' in x.stem], ids=lambda x: x.stem)
def test_augmentation_does_not_wrap_around(path, tmp_path):
    from mmcv.transforms import Compose
    Image.new('RGB', (300, 260), (250, 250, 250)).save(tmp_path / 'a.png')
    cfg = Config.fromfile(path)
    dataset = cfg.train_dataloader.dataset
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        pipeline = Compose([TRANSFORMS.build(x) for x in dataset.pipeline])
        for _ in range(8):
            view = pipeline(dict(img_path=str(tmp_path / 'a.png'),
                                 gt_label=0))['inputs']
            assert view.shape == (3, 224, 224)
            # Jitter reduces brightness and contrast by at most 0.4 each.
            # Values that wrap around would be near 0.
            assert view.min() > 80


def test_voc_config_concatenates_two_years(tmp_path):
    cfg = Config.fromfile(
        BENCHMARKS / 'mmdetection' / 'faster-rcnn_r50_c4_24k_voc0712.py')
    text = ('<annotation><size><width>100</width><height>90</height></size>'
            '<object><name>cat</name><difficult>0</difficult><bndbox>'
            '<xmin>10</xmin><ymin>10</ymin><xmax>80</xmax><ymax>70</ymax>'
            '</bndbox></object></annotation>')
    for year in ('VOC2007', 'VOC2012'):
        for folder, name, content in (('ImageSets/Main', 'trainval.txt', '1'),
                                      ('Annotations', '1.xml', text)):
            path = tmp_path / year / folder / name
            path.parent.mkdir(parents=True)
            path.write_text(content)
    for dataset in cfg.train_dataloader.dataset.datasets:
        dataset.data_root = f'{tmp_path}/'
    with DefaultScope.overwrite_default_scope('mmdet'):
        assert len(DATASETS.build(cfg.train_dataloader.dataset)) == 2


def test_docs_name_all_configs():
    docs = (BENCHMARKS.parents[1] / 'docs' / 'downstream.md').read_text()
    for path in CONFIGS:
        assert f'{path.parent.name}/{path.name}' in docs, path.name
