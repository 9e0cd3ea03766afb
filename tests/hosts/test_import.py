"""Importing univip_mm does not change its host."""
import json
import sys
from pathlib import Path

import pytest
from project import HOST, run

LOAD_HOST = f'''
import importlib
for part in ('datasets', 'engine', 'evaluation', 'models', 'visualization'):
    importlib.import_module('{HOST}.' + part)
'''
STATE = LOAD_HOST + f'''
import json, os, random, sys, warnings
import cv2, numpy, torch
import mmengine.registry
import {HOST}.registry


def state():
    registries = {{}}
    for place in (mmengine.registry, {HOST}.registry):
        for name, value in vars(place).items():
            if isinstance(value, mmengine.registry.Registry):
                registries[place.__name__ + '.' + name] = sorted(
                    value.module_dict)
    return dict(
        registries=registries,
        scope=str(mmengine.registry.DefaultScope.get_current_instance()),
        random=[repr(random.getstate()), repr(numpy.random.get_state()),
                torch.get_rng_state().tolist()],
        torch=[torch.get_num_threads(), str(torch.get_default_dtype()),
               torch.is_grad_enabled(), torch.backends.cudnn.benchmark,
               torch.backends.cudnn.deterministic,
               torch.are_deterministic_algorithms_enabled(),
               torch.get_float32_matmul_precision()],
        cv2=[cv2.getNumThreads(), cv2.ocl.useOpenCL()],
        warnings=len(warnings.filters), environment=dict(os.environ))


before = state()
import univip_mm
after = state()
for key in before:
    assert before[key] == after[key], key
print(univip_mm.__file__)
'''
STEPS = '''
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.registry import DefaultScope
from HOST.registry import MODELS
MessageHub.get_current_instance().update_info('max_iters', 10)
torch.manual_seed(0)
backbone = dict(type='ResNet', depth=18, norm_cfg=dict(type='BN'))
if 'HOST' == 'mmselfsup':
    backbone.update(in_channels=3, out_indices=[4])
neck = dict(type='NonLinearNeck', in_channels=512, hid_channels=8,
            out_channels=8, with_bias=True, with_avg_pool=True,
            norm_cfg=dict(type='BN1d'))
predictor = dict(type='NonLinearNeck', in_channels=8, hid_channels=8,
                 out_channels=8, with_avg_pool=False,
                 norm_cfg=dict(type='BN1d'))
latent = dict(type='LatentPredictHead', predictor=predictor,
              loss=dict(type='CosineSimilarityLoss'))
contrastive = dict(type='ContrastiveHead', temperature=0.2,
                   loss=dict(type='mmcls.CrossEntropyLoss'
                             if 'HOST' == 'mmselfsup' else 'CrossEntropyLoss'))
model = dict(
    BYOL=dict(type='BYOL', base_momentum=0.01, head=latent),
    SimSiam=dict(type='SimSiam', head=latent),
    MoCo=dict(type='MoCo', queue_len=32, feat_dim=8, momentum=0.001,
              head=contrastive))['NAME']
with DefaultScope.overwrite_default_scope('HOST'):
    model = MODELS.build(dict(model, backbone=backbone, neck=neck,
        data_preprocessor=dict(type='SelfSupDataPreprocessor')))
    model.init_weights()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(3):
    views = [torch.randn(4, 3, 32, 32), torch.randn(4, 3, 32, 32)]
    loss = model(views, [None] * 4, mode='loss')['loss']
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(loss.item())
'''
# MoCo gathers its keys from all processes, so it needs a process group.
GROUP = '''
import os, tempfile, torch.distributed
torch.distributed.init_process_group(
    'gloo', init_method='file://' + tempfile.mktemp(), rank=0, world_size=1)
'''


def test_import_uses_wheel_without_side_effects(tmp_path):
    said = run(tmp_path, sys.executable, '-W', 'ignore', '-c', STATE)
    path = Path(said.splitlines()[-1])
    assert 'site-packages' in path.parts


@pytest.mark.parametrize('scope', ['univip_mm', 'HOST'])
def test_components_are_found_from_either_scope(tmp_path, scope):
    prefix = '' if scope == 'univip_mm' else 'univip_mm.'
    said = run(
        tmp_path, sys.executable, '-W', 'ignore', '-c', f'''
import univip_mm
from {scope.replace('HOST', HOST)}.registry import (
    DATASETS, MODELS, TRANSFORMS)
for name in ('UniVIP', 'UniVIPNeck', 'SinkhornOTLoss',
             'UniVIPDataPreprocessor'):
    assert MODELS.get('{prefix}' + name).__name__ == name
assert TRANSFORMS.get('{prefix}OverlapSceneCrop')
assert DATASETS.get('{prefix}ProposalCocoDataset')
print('found')''')
    assert said.splitlines()[-1] == 'found'


@pytest.mark.parametrize('name', ['BYOL', 'SimSiam', 'MoCo'])
def test_host_algorithms_compute_the_same_bits(tmp_path, name):
    steps = LOAD_HOST + GROUP + STEPS.replace('HOST', HOST).replace(
        'NAME', name)
    without, with_us = (
        run(tmp_path, sys.executable, '-W', 'ignore', '-c',
            first + steps).splitlines()[-3:]
        for first in ('', 'import univip_mm\n'))
    assert [float(x) for x in with_us] == [float(x) for x in without]


def test_python_starts_without_univip_mm(tmp_path):
    said = run(tmp_path, sys.executable, '-c', '''
import json, sys
print(json.dumps([x for x in sys.modules if x.split('.')[0] in (
    'univip_mm', 'torch', 'mmengine', 'numpy', 'cv2')]))''')
    assert json.loads(said.splitlines()[-1]) == []
