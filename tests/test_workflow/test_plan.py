import pytest
import torch
from test_workflow.small_run import OVERRIDES, small_plan, write_photographs

from univip_mm.io.boxes import ProposalRules
from univip_mm.proposals import Search
from univip_mm.workflow import config_file
from univip_mm.workflow.config_file import is_edited, write_config
from univip_mm.workflow.plan import Request, final_settings, make_plan
from univip_mm.workflow.recipe import Devices
from univip_mm.workflow.run_folder import RunFolder


@pytest.fixture
def photos(tmp_path):
    return write_photographs(tmp_path / 'photos')


def values(settings):
    return {name: x.value for name, x in settings.choices.items()}


@pytest.mark.parametrize('arch', ['vit_small', 'timm/resnet18', 'resnext50'])
def test_make_plan_accepts_other_networks(tmp_path, photos, arch):
    run = RunFolder(tmp_path / 'run')
    request, plan = small_plan(run, photos, arch=arch, overrides={})
    settings, cfg = final_settings(run, request, plan, plan.images)
    is_vit = arch == 'vit_small'
    assert cfg.optim_wrapper.optimizer.type == ('AdamW' if is_vit else 'SGD')
    assert 'depth' not in cfg.model.backbone or arch == 'resnext50'
    assert settings.choices['learning rate'].value == (
        cfg.optim_wrapper.optimizer.lr)


def test_final_settings_show_what_is_set(tmp_path, photos):
    run = RunFolder(tmp_path / 'run')
    request, plan = small_plan(run, photos, epochs=2, overrides={
        **OVERRIDES, 'optim_wrapper.optimizer.lr': 0.5})
    settings, _ = final_settings(run, request, plan, plan.images)
    choice = settings.choices['learning rate']
    assert (choice.value, choice.reason) == (0.5, 'set by you')


def test_final_settings_use_an_edited_config(tmp_path, photos):
    run = RunFolder(tmp_path / 'run')
    request, plan = small_plan(run, photos, epochs=2)
    settings, cfg = final_settings(run, request, plan, plan.images)
    assert values(settings)['steps'] == 2
    cfg.train_cfg.max_epochs = 5
    cfg.param_scheduler[-1].end = 5
    write_config(cfg, settings, run)
    run.config.write_text(f'# mine\n{run.config.read_text()}')
    assert is_edited(run)
    settings, _ = final_settings(run, request, plan, plan.images)
    assert (values(settings)['epochs'], values(settings)['steps']) == (5, 5)
    with pytest.raises(ValueError, match='written for 4 devices, now 1'):
        final_settings(run, request, plan._replace(earlier=dict(devices=4)),
                       plan.images)
    run.config.write_text('1 +')
    with pytest.raises(ValueError, match='config.py.*correct it, or remove'):
        final_settings(run, request, plan, plan.images)


def test_make_plan_keeps_the_object_size_of_a_run(tmp_path, photos):
    """Images that are added can change the median of the sides."""
    run = RunFolder(tmp_path / 'run')
    request, plan = small_plan(run, photos, overrides={})
    search = Search(rules=ProposalRules(40))
    _, cfg = final_settings(run, request, plan._replace(search=search),
                            plan.images)
    assert cfg.train_dataloader.dataset.pipeline[1].min_size == 40
    assert cfg.train_dataloader.dataset.min_image_size == 40


def test_final_settings_show_the_values_of_the_config(
        tmp_path, photos, monkeypatch):
    """As on a GPU, whose precision and graph the options change."""
    monkeypatch.setattr(config_file, 'check_training', lambda cfg: None)
    run = RunFolder(tmp_path / 'run')
    changes = {
        'optim_wrapper.type': 'OptimWrapper', 'model.graph': None,
        'param_scheduler.0.end': 3, 'param_scheduler.1.begin': 3}
    gpu = Devices('cuda', 1, 'H100', bfloat16=True)
    for overrides, expected in (
            ({}, ['bfloat16', 'cuda_graph', 2]),
            (changes, ['float32', None, 3])):
        request, plan = small_plan(run, photos, epochs=20, overrides={
            **OVERRIDES, **overrides})
        settings, _ = final_settings(
            run, request, plan._replace(devices=gpu), plan.images)
        found = values(settings)
        assert [found[x] for x in ('precision', 'graph', 'warm-up')
                ] == expected
        assert (settings.choices['precision'].reason == 'set by you') == bool(
            overrides)


def test_make_plan_reports_wrong_values_of_the_initialized_network(
        tmp_path, photos):
    weights = tmp_path / 'weights.pth'
    torch.save(dict(a=torch.zeros(1)), weights)
    for key, value in (('depth', 19), ('dpeth', 18)):
        with pytest.raises(ValueError, match=f'--set model.backbone.{key}: a'):
            small_plan(RunFolder(tmp_path / 'run'), photos, init=weights,
                       overrides={f'model.backbone.{key}': value})


def test_make_plan_needs_a_safe_reader(tmp_path, photos, monkeypatch):
    """At the end, the backbone is read from a checkpoint."""
    monkeypatch.setattr(torch, '__version__', '2.5.1')
    with pytest.raises(ValueError, match='torch>=2.6'):
        small_plan(RunFolder(tmp_path / 'run'), photos)


@pytest.mark.parametrize('overrides', [
    {'train_dataloader': 3}, {'model.backbone.depth': 19},
    {'proposal_rules.size': 3}])
def test_make_plan_reports_wrong_values(tmp_path, photos, overrides):
    with pytest.raises(ValueError, match='--set'):
        small_plan(RunFolder(tmp_path / 'run'), photos, overrides=overrides)


def test_make_plan_refuses_devices_of_a_launcher(
        tmp_path, photos, monkeypatch):
    monkeypatch.setenv('TORCHELASTIC_RUN_ID', 'x')
    monkeypatch.setenv('WORLD_SIZE', '2')
    run = RunFolder(tmp_path / 'run')
    with pytest.raises(ValueError, match='pytorch has started'):
        make_plan(run, Request(str(photos), devices='cpu:3'), False)
    _, plan = small_plan(run, photos)
    assert (plan.devices.count, plan.devices.visible) == (2, '')
