import importlib
import subprocess
import sys

import mmengine.registry
import pytest
from mmengine.registry import DefaultScope

from univip_mm import registry
from univip_mm.datasets import collate_views
from univip_mm.registry import HOST


def test_functions_of_mmengine_stay_as_they_are():
    theirs = mmengine.registry.FUNCTIONS
    assert 'collate_views' not in theirs.module_dict
    assert theirs.get('univip_mm.collate_views') is collate_views


@pytest.mark.parametrize('kind, name', [
    ('MODELS', 'UniVIP'),
    ('MODELS', 'UniVIPNeck'),
    ('MODELS', 'SinkhornOTLoss'),
    ('MODELS', 'UniVIPDataPreprocessor'),
    ('TRANSFORMS', 'OverlapSceneCrop'),
    ('DATASETS', 'ProposalCocoDataset'),
    ('DATASETS', 'CocoMultiLabel'),
    ('HOOKS', 'SafeResumeHook'),
    ('HOOKS', 'SkippedImagesHook'),
    ('METRICS', 'MultiLabelProbe'),
    ('OPTIMIZERS', 'ForeachLARS'),
])
def test_components_are_registered_in_our_scope(kind, name):
    ours = getattr(registry, kind)
    hosts = getattr(importlib.import_module(f'{HOST}.registry'), kind)
    assert ours.scope == 'univip_mm' and name in ours.module_dict
    assert ours.get(name).__module__.startswith('univip_mm.')
    # Other scopes find the component by its full name only.
    assert hosts.get(f'univip_mm.{name}') is ours.get(name)
    assert hosts.get(name) is None


@pytest.mark.parametrize('kind, name', [
    ('MODELS', 'ResNet'),
    ('MODELS', 'NonLinearNeck'),
    ('MODELS', 'LatentPredictHead'),
    ('MODELS', 'CosineSimilarityLoss'),
    ('MODELS', 'CosineEMA'),
    ('MODELS', 'BN1d'),
    ('OPTIMIZERS', 'LARS'),
    ('OPTIMIZERS', 'SGD'),
    ('OPTIM_WRAPPERS', 'AmpOptimWrapper'),
    ('PARAM_SCHEDULERS', 'CosineAnnealingLR'),
    ('TRANSFORMS', 'PackInputs'),
    ('TRANSFORMS', 'LoadImageFromFile'),
    ('DATASETS', 'ConcatDataset'),
    ('DATA_SAMPLERS', 'DefaultSampler'),
    ('HOOKS', 'CheckpointHook'),
    ('LOOPS', 'EpochBasedTrainLoop'),
    ('MODEL_WRAPPERS', 'MMDistributedDataParallel'),
    ('VISUALIZERS', 'UniversalVisualizer'),
])
def test_registries_find_components_of_the_host(kind, name):
    assert getattr(registry, kind).get(name) is not None


def test_resnet_belongs_to_host():
    assert registry.MODELS.get('ResNet').__module__.startswith(f'{HOST}.')


def test_host_scope_builds_our_neck_by_its_full_name():
    hosts = importlib.import_module(f'{HOST}.registry').MODELS
    with DefaultScope.overwrite_default_scope(HOST):
        neck = hosts.build(
            dict(type='univip_mm.UniVIPNeck', in_channels=8, out_channels=8))
    assert type(neck) is registry.MODELS.get('UniVIPNeck')


def test_import_of_the_package_registers_univip():
    program = (
        'import univip_mm\n'
        f'from {HOST}.registry import MODELS\n'
        "print(MODELS.get('univip_mm.UniVIP').__name__)\n")
    out = subprocess.run([sys.executable, '-c', program], text=True,
                         capture_output=True)
    assert out.stdout == 'UniVIP\n', out.stderr
