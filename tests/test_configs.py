import json
import math
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.utils import get_installed_path
from tiny import CONFIGS, make_coco_folder, run_tool

from univip_mm.engine.cpu import prepare_for_cpu
from univip_mm.registry import HOST, MODELS, PARAM_SCHEDULERS

NAMES = sorted(path.stem for path in CONFIGS.glob('univip_*.py'))
RECIPES = [name for name in NAMES if name.startswith('univip_r50_')]
COCO = ['univip_r50_coco', 'univip_r50_cocoplus']
BF16 = 'univip_r50_coco_bf16'  # needs a GPU
EPOCHS = dict(
    univip_r50_coco=800, univip_r50_coco_bf16=800, univip_r50_cocoplus=800,
    univip_r50_imagenet=200, univip_r50_imagenet_300e=300)


def load(name):
    return Config.fromfile(CONFIGS / f'{name}.py')


def crop_of(cfg):
    crop, = (step for step in cfg.train_dataloader.dataset.pipeline
             if step.type == 'OverlapSceneCrop')
    return crop


def test_all_recipes_of_the_paper_have_configs():
    assert RECIPES == sorted(EPOCHS)


@pytest.mark.parametrize('name', COCO)
def test_coco_recipes_use_optimizer_of_paper(name):
    cfg = load(name)
    assert cfg.optim_wrapper == dict(
        type='OptimWrapper',
        optimizer=dict(type='SGD', lr=0.4, momentum=0.9, weight_decay=1e-4))
    assert cfg.train_dataloader.batch_size == 512 // 8
    assert cfg.auto_scale_lr == dict(base_batch_size=512, enable=False)


@pytest.mark.parametrize('name', RECIPES)
def test_recipes_use_network_of_paper(name):
    model = load(name).model
    assert (model.backbone.type, model.backbone.depth) == ('ResNet', 50)
    projector, predictor = model.neck, model.head.predictor
    for part, sizes in ((projector, (2048, 4096, 256)),
                        (predictor, (256, 4096, 256))):
        assert part.num_layers == 2
        assert (part.in_channels, part.hid_channels,
                part.out_channels) == sizes
    for part in (model.backbone, projector, predictor):
        assert part.norm_cfg == dict(type='SyncBN')
    assert model.base_momentum == 0.01
    assert model.loss_weights == dict(
        scene=1., scene_instance=1., instance=1.)
    assert model.instance_loss == dict(
        type='SinkhornOTLoss', epsilon=0.1, num_iters=50)


@pytest.mark.parametrize('name', RECIPES)
def test_recipes_use_views_of_paper(name):
    cfg = load(name)
    crop = crop_of(cfg)
    assert crop == dict(
        type='OverlapSceneCrop', num_instances=4, scene_size=224,
        instance_size=96, max_attempts=20, min_size=64, max_aspect_ratio=3.0,
        iou_thr=0.5)
    assert cfg.model.fusion_neck.num_instances == 4
    preprocessor = MODELS.build(cfg.model.data_preprocessor)
    assert preprocessor.mean.flatten().tolist() == pytest.approx(
        [123.675, 116.28, 103.53])
    assert preprocessor.std.flatten().tolist() == pytest.approx(
        [58.395, 57.12, 57.375])
    first, second = preprocessor.scene1, preprocessor.scene2
    assert (first.blur_prob, first.solarize_prob) == (1.0, 0.0)
    assert (second.blur_prob, second.solarize_prob) == (0.1, 0.2)
    assert preprocessor.instances == first


@pytest.mark.parametrize('name', NAMES)
def test_configs_shuffle_each_epoch(name):
    cfg = load(name)
    assert cfg.train_dataloader.sampler == dict(
        type='EpochSampler', shuffle=True)
    assert cfg.train_dataloader.drop_last
    assert cfg.default_hooks.sampler_seed.type == 'DistSamplerSeedHook'


def learning_rates(cfg, epoch_length):
    """Return the learning rate of each iteration."""
    optimizer = torch.optim.SGD([torch.zeros(1)],
                                cfg.optim_wrapper.optimizer.lr)
    schedulers = []
    for part in cfg.param_scheduler:
        part = dict(part)
        assert part.pop('convert_to_iter_based')
        kind = PARAM_SCHEDULERS.get(part.pop('type'))
        schedulers.append(
            kind.build_iter_from_epoch(
                optimizer=optimizer, epoch_length=epoch_length, **part))
    rates = []
    for _ in range(cfg.train_cfg.max_epochs * epoch_length):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return rates


@pytest.mark.parametrize('name, warm_up', [
    ('univip_r50_coco', 4),
    ('univip_r50_cocoplus', 4),
    ('univip_r50_imagenet', 10),
    ('univip_r50_imagenet_300e', 10),
])
def test_lr_schedule_is_linear_then_cosine(name, warm_up):
    length, cfg = 5, load(name)
    rates = learning_rates(cfg, length)
    epochs = EPOCHS[name]
    assert len(rates) == epochs * length
    top, start = cfg.optim_wrapper.optimizer.lr, warm_up * length
    for i, rate in enumerate(rates):
        if i < start:
            share = i / (start - 1)
            expected = 1e-4 + (1 - 1e-4) * share
        else:
            share = (i - start) / (epochs * length - start)
            expected = (1 + math.cos(math.pi * share)) / 2
        assert rate == pytest.approx(top * expected, rel=1e-6, abs=1e-9)
    assert rates[-1] < 1e-5 * top


def hosts_byol():
    folder = Path(get_installed_path(HOST)) / '.mim' / 'configs'
    found = list(folder.rglob('byol_resnet50_16xb256-coslr-200e_in1k.py'))
    if not found:
        pytest.skip(f'{HOST} was installed without its configs')
    return Config.fromfile(found[0])


@pytest.mark.parametrize('name',
                         ['univip_r50_imagenet', 'univip_r50_imagenet_300e'])
def test_imagenet_recipes_use_optimizer_of_host_byol(name):
    ours, theirs = load(name), hosts_byol()
    assert ours.optim_wrapper.optimizer.pop('type') == 'ForeachLARS'
    assert theirs.optim_wrapper.optimizer.pop('type') == 'LARS'
    assert ours.optim_wrapper == theirs.optim_wrapper
    assert (ours.auto_scale_lr.base_batch_size ==
            theirs.auto_scale_lr.base_batch_size == 4096)
    keys = ('type', 'begin', 'start_factor')
    for mine, host in zip(ours.param_scheduler, theirs.param_scheduler):
        assert [mine.get(k) for k in keys] == [host.get(k) for k in keys]


@pytest.mark.parametrize('name', RECIPES)
def test_recipes_use_network_of_host_byol(name):
    ours, theirs = load(name).model, hosts_byol().model
    assert ours.backbone == theirs.backbone
    assert ours.base_momentum == theirs.base_momentum
    # SyncBN is the default of the host's neck.
    sync_bn = dict(norm_cfg=dict(type='SyncBN'))
    assert ours.neck == {**sync_bn, **theirs.neck}
    assert ours.head.predictor == {**sync_bn, **theirs.head.predictor}
    assert ours.head.loss == theirs.head.loss


def test_cocoplus_joins_two_data_sets():
    data = load('univip_r50_cocoplus').train_dataloader.dataset
    assert ['train2017' in x for x in data.ann_file] == [True, False]
    for parts in (data.ann_file, data.proposal_file,
                  data.data_prefix.img_path):
        assert 'train2017' in parts[0] and 'unlabeled2017' in parts[1]


def test_small_config_keeps_lr_per_image():
    small, recipe = load('univip_r18_coco'), load('univip_r50_coco')
    batch = small.train_dataloader.batch_size
    assert small.auto_scale_lr.base_batch_size == batch
    assert small.optim_wrapper.optimizer.lr / batch == pytest.approx(
        recipe.optim_wrapper.optimizer.lr / 512)
    assert crop_of(small) == crop_of(recipe)


def sync_bn_fix(name, monkeypatch):
    """Return the options that the SyncBN error suggests."""
    cfg = load(name)
    cfg.launcher = 'pytorch'
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(ValueError, match='--cfg-options') as e:
        prepare_for_cpu(cfg)
    return re.findall(r'\S+=\S+', str(e.value))


def test_bfloat16_recipe_changes_how_a_step_runs():
    coco, ours = (load(name) for name in (COCO[0], BF16))
    assert ours.optim_wrapper.pop('type') == 'AmpOptimWrapper'
    assert ours.optim_wrapper.pop('dtype') == 'bfloat16'
    assert ours.optim_wrapper.pop('loss_scale') == dict(enabled=False)
    assert coco.optim_wrapper.pop('type') == 'OptimWrapper'
    assert ours.model.data_preprocessor.pop('channels_last') is True
    assert ours.model.pop('graph') == 'inductor'
    assert ours.to_dict() == coco.to_dict()


@pytest.mark.parametrize('name', sorted(set(NAMES) - {BF16}))
def test_config_trains_one_step_on_cpu(name, tmp_path, monkeypatch):
    make_coco_folder(tmp_path / 'data', number=2)
    options = sync_bn_fix(name, monkeypatch) if name in RECIPES else []
    files = ['train.json', 'train.npz', 'images']
    if name == 'univip_r50_cocoplus':
        files = [f'[{x},{x}]' for x in files]
    ann_file, proposal_file, images = files
    data = 'train_dataloader.dataset'
    run_tool(
        'train', CONFIGS / f'{name}.py', '--work-dir', tmp_path / 'out',
        '--cfg-options', *options, f'{data}.data_root={tmp_path / "data"}',
        f'{data}.ann_file={ann_file}',
        f'{data}.proposal_file={proposal_file}',
        f'{data}.data_prefix.img_path={images}',
        f'{data}.pipeline.1.scene_size=32',
        f'{data}.pipeline.1.instance_size=32',
        f'{data}.pipeline.1.min_size=64', 'train_dataloader.batch_size=2',
        'train_dataloader.num_workers=0', 'train_cfg.max_epochs=1',
        'default_hooks.logger.interval=1',
        # A checkpoint of these networks has half a gigabyte.
        'default_hooks.checkpoint.interval=2',
        'default_hooks.checkpoint.save_last=False')
    log = next((tmp_path / 'out').rglob('scalars.json')).read_text()
    lines = [json.loads(line) for line in log.splitlines()]
    lines = [x for x in lines if 'loss' in x]  # not the effective rank
    assert len(lines) == (2 if name == 'univip_r50_cocoplus' else 1)
    for line in lines:
        assert all(
            math.isfinite(line[term]) and abs(line[term]) <= 2.001
            for term in ('loss_scene', 'loss_scene_instance', 'loss_instance'))
    assert not list((tmp_path / 'out').rglob('*.pth'))
