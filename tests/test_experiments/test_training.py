import pytest
import torch

from experiments.byol_comparison.settings import (
    METHODS,
    NOT_PRETRAINED,
    Experiment,
    Run,
)
from experiments.byol_comparison.training import build_model, load_config

PRETRAINED = [x for x in METHODS if x not in NOT_PRETRAINED]


@pytest.mark.parametrize('method', PRETRAINED)
def test_config_has_the_terms_of_its_method(method):
    cfg = load_config(Experiment(), Run(method, 5))
    crop = cfg.train_dataloader.dataset.pipeline[1]
    assert crop.get('scenes', 'overlap') == (
        'independent' if method == 'byol' else 'overlap')
    assert crop.get('instances', True) == ('byol' not in method)
    assert cfg.model.type == ('SceneBYOL' if 'byol' in method else 'UniVIP')
    assert cfg.optim_wrapper.optimizer.lr == 0.2
    weights = cfg.model.get('loss_weights', {})
    assert [weights.get(x) for x in ('scene_instance', 'instance')] == dict(
        byol=[1, 1], byol_overlap=[1, 1],
        scene_instance=[1, 0], instance_instance=[0, 1]).get(method, [1, 1])
    file = cfg.train_dataloader.dataset.proposal_file
    assert ('none' in file) == (method == 'univip_random_boxes')


@pytest.mark.parametrize('method', PRETRAINED)
def test_large_config_differs_in_size_only(method):
    small, large = (load_config(Experiment(large=large), Run(method, 5))
                    for large in (False, True))
    assert small.model.type == large.model.type
    assert small.model.get('loss_weights') == large.model.get('loss_weights')
    assert small.optim_wrapper.optimizer == large.optim_wrapper.optimizer
    assert (small.train_dataloader.dataset.proposal_file ==
            large.train_dataloader.dataset.proposal_file)
    assert ([x.type for x in small.train_dataloader.dataset.pipeline] ==
            [x.type for x in large.train_dataloader.dataset.pipeline])


@pytest.mark.parametrize('method', ['byol', 'byol_overlap', 'univip'])
def test_large_config_has_large_views_and_network(method):
    run = Run(method, 5, 'tiny', ('train_dataloader.batch_size=4', ))
    cfg = load_config(Experiment(large=True, epochs=3), run)
    step = cfg.train_dataloader.dataset.pipeline[1]
    assert (step.scene_size, step.instance_size) == (128, 64)
    model = build_model(cfg)
    assert model.backbone.layer4[-1].conv2.out_channels == 512
    assert model.data_preprocessor.scene2.blur_kernel == 9
    assert model.neck.fc0.in_features == 512
    assert cfg.auto_scale_lr == dict(base_batch_size=64, enable=True)
    # Set by the options.
    assert cfg.train_dataloader.batch_size == 4
    assert cfg.train_cfg.max_epochs == cfg.param_scheduler[-1].end == 3


@pytest.mark.parametrize('changes, bf16', [
    ({}, True), (dict(bf16=False), False), (dict(large=True), True)])
def test_bf16_is_set_in_the_config(changes, bf16):
    wrapper = load_config(Experiment(**changes), Run('byol', 5)).optim_wrapper
    in_bf16 = ('AmpOptimWrapper' if torch.cuda.is_available() else
               'CpuBFloat16OptimWrapper')
    assert wrapper.type == (in_bf16 if bf16 else 'OptimWrapper')
