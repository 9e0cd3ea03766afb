import pytest
from mmengine.config import Config
from test_workflow.small_run import small_plan, write_photographs
from tiny import CONFIGS

from univip_mm.engine.architectures import architecture_options
from univip_mm.io.boxes import ProposalRules
from univip_mm.workflow.config_file import (
    Settings,
    build_config,
    checkpoint_bytes,
    is_edited,
    write_config,
)
from univip_mm.workflow.plan import Request, final_settings
from univip_mm.workflow.recipe import Choice, Devices
from univip_mm.workflow.run_folder import RunFolder

GPUS = Devices('cuda', 8, '8 x H100', bfloat16=True)


def settings_of(architecture='resnet50', devices=GPUS, overrides=(), **values):
    values = {'batch size': 512, 'epochs': 800, 'steps': 184_800,
              'learning rate': 0.4, 'EMA momentum': 0.01, 'warm-up': 4,
              'workers': 8, 'object size': 64, **values}
    return Settings('/data', architecture_options(architecture), devices,
                    ProposalRules(), {
        name: Choice(name, value, '', '') for name, value in values.items()},
        dict(overrides))


def test_build_config_of_coco_is_the_recipe():
    """What differs is precision, paths, and how often something is saved."""
    recipe = Config.fromfile(CONFIGS / 'univip_r50_coco_bf16.py')
    cfg = build_config(settings_of())
    for key in ('model.backbone', 'model.neck', 'model.head',
                'model.fusion_neck', 'model.instance_loss',
                'model.base_momentum', 'model.data_preprocessor',
                'train_cfg', 'param_scheduler', 'optim_wrapper.optimizer',
                'train_dataloader.batch_size', 'train_dataloader.sampler',
                'train_dataloader.dataset.pipeline', 'randomness'):
        expected, found = recipe, cfg
        for name in key.split('.'):
            expected, found = expected[name], found[name]
        assert found == expected, key


@pytest.mark.parametrize('devices, norms', [
    (GPUS, {'SyncBN'}), (Devices('cuda', 1, ''), {'BN', 'BN1d'}),
    (Devices('cpu', 2, ''), {'BN', 'BN1d'})])
def test_build_config_chooses_batch_norm(devices, norms):
    cfg = build_config(settings_of(devices=devices))
    found = {cfg.model.backbone.norm_cfg.type, cfg.model.neck.norm_cfg.type,
             cfg.model.head.predictor.norm_cfg.type}
    assert found == norms
    assert cfg.model.get('graph') is None
    assert ('dtype' in cfg.optim_wrapper) == devices.bfloat16


def test_build_config_scales_transformers():
    cfg = build_config(settings_of('vit_small', **{'warm-up': 40}))
    assert cfg.optim_wrapper.optimizer.type == 'AdamW'
    assert [x['end'] for x in cfg.param_scheduler] == [40, 800]


def test_build_config_reports_wrong_overrides():
    for key in ('model.backbone.depth.x', 'param_scheduler.7.end',
                'train_cfg.max_epochs', 'work_dir', 'modle.backbone',
                'proposal_rules'):
        with pytest.raises(ValueError, match=f'--set {key}'):
            build_config(settings_of(overrides={key: 1}))


def test_build_config_can_leave_bfloat16():
    cfg = build_config(settings_of(
        overrides={'optim_wrapper.type': 'OptimWrapper'}))
    assert 'dtype' not in cfg.optim_wrapper


def test_build_config_scales_the_loss_of_float16():
    cfg = build_config(settings_of(
        overrides={'optim_wrapper.dtype': 'float16'}))
    assert cfg.optim_wrapper.get('loss_scale', 'dynamic') == 'dynamic'
    assert build_config(settings_of()).optim_wrapper.loss_scale == dict(
        enabled=False)


def test_checkpoint_bytes_of_resnet50():
    """ResNet-50 has 23.5 million weights, projector and predictor 11.6."""
    assert checkpoint_bytes(build_config(settings_of())) == pytest.approx(
        16 * 36e6, rel=0.05)


def test_write_config_can_be_read_and_edited(tmp_path):
    run = RunFolder(tmp_path / 'run')
    folder = write_photographs(tmp_path / 'photos')
    request, plan = small_plan(run, folder, epochs=3)
    settings, cfg = final_settings(run, request, plan, plan.images)
    assert not is_edited(run)
    write_config(cfg, settings, run)
    read = Config.fromfile(run.config)
    assert read.work_dir == str(run.checkpoints)
    dataset = read.train_dataloader.dataset
    assert dataset.ann_file == str(run.images)
    assert dataset.data_prefix.img_path == str(folder)
    assert dataset.pipeline[1].min_size == 16
    assert read.train_cfg.max_epochs == 3
    assert '# epochs: 3 (as given)' in run.config.read_text()
    assert not is_edited(run)
    run.config.write_text(run.config.read_text() + '# mine\n')
    assert is_edited(run)


def test_request_keeps_init_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Request('x', init='a.pth').init_path == str(tmp_path / 'a.pth')
    assert Request('x', init='https://host/a').init_path == 'https://host/a'
    assert Request('x').init_path is None


def test_build_config_starts_from_weights():
    settings = settings_of()._replace(has_init=True)
    assert build_config(settings).model.backbone.init_cfg == dict(
        type='Pretrained', checkpoint='{{ fileDirname }}/init.pth')
    assert build_config(settings._replace(
        init_partial=True)).model.backbone.init_cfg.partial
