"""The hook in a tiny training.

The views, the augmentation and the flips of the evaluated images use the
global random generators.
"""
import json
import os
import random
import shutil
import subprocess
from types import SimpleNamespace

import mmengine.config.config
import numpy as np
import pytest
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from tiny import PYTHONPATH, ROOT, error_of, free_port, run_tool, write_config
from warm_python import warm_python

from univip_mm.engine import OnlineProbeHook
from univip_mm.engine.hooks.online_probe_hook import preserve_state
from univip_mm.registry import HOOKS

TRAINING = '''
_base_ = './tiny.py'
custom_imports = dict(
    imports=['univip_mm', 'univip_mm.downstream', 'tiny'],
    allow_failed_imports=False)
train_dataloader = dict(
    num_workers={workers}, persistent_workers=False,
    sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True))
default_hooks = dict(logger=dict(interval=1))
# Larger steps let this network, whose batches have two images, explode on some
# processors.
optim_wrapper = dict(optimizer=dict(lr=1e-4))
'''
PROBE = '''
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(32, 32)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs', meta_keys=('img_path', 'img_id', 'split'))]
probe_dataloader = dict(
    batch_size=2, num_workers={workers},
    dataset=dict(
        type='ConcatDataset',
        datasets=[
            dict(type='CocoMultiLabel', data_root={root!r},
                 ann_file='labelled.json', data_prefix=dict(img_path='images'),
                 split=split, part=part, pipeline=pipeline)
            for split, part in dict(train=(0, .5), val=(.5, 1)).items()]))
'''
HOOK = '''
custom_hooks = [
    dict(type='SafeResumeHook'),
    dict(type='OnlineProbeHook', dataloader=probe_dataloader,
         evaluator=dict(type='MultiLabelProbe'), interval=1,
         branch='{branch}')
]
'''


@pytest.fixture(autouse=True)
def plain_config(monkeypatch):
    """Skip MMEngine's formatting of the config, which takes seconds."""
    monkeypatch.setattr(mmengine.config.config, 'FormatCode',
                        lambda text, **_: (text, False))


@HOOKS.register_module(force=True)
class SaveRandomState(Hook):
    """Hook that saves the random states and the modes at the end."""
    priority = 'LOWEST'

    def after_train(self, runner):
        model = getattr(runner.model, 'module', runner.model)
        torch.save(
            dict(python=repr(random.getstate()),
                 numpy=repr(np.random.get_state()[1:]),
                 torch=torch.get_rng_state(),
                 modes=[x.training for x in model.modules()],
                 benchmark=torch.backends.cudnn.benchmark,
                 hub=sorted(runner.message_hub.log_scalars)),
            f'{runner.work_dir}/end_{get_rank()}.pth')


def write(folder, hook, workers=0, branch='online', more=''):
    """Write a config with or without the hook."""
    write_config(folder)
    images = json.loads((folder / 'train.json').read_text())['images']
    (folder / 'labelled.json').write_text(
        json.dumps(
            dict(images=images,
                 categories=[dict(id=1, name='cat'), dict(id=2, name='dog')],
                 annotations=[
                     dict(id=i, image_id=image['id'], category_id=1 + i % 2,
                          bbox=[0, 0, 9, 9], area=81, iscrowd=0)
                     for i, image in enumerate(images)])))
    path = folder / 'probe.py'
    text = TRAINING + PROBE + (HOOK if hook else 'custom_hooks = []\n')
    path.write_text(
        text.format(root=str(folder), workers=workers, branch=branch) + more +
        "custom_hooks += [dict(type='SaveRandomState')]\n"
        'del probe_dataloader, pipeline\n')
    return path


def train(folder, hook, **options):
    out = folder / f'with_{hook}'
    run_tool('train', write(folder, hook, **options), '--work-dir', out)
    return out


def load(path):
    return torch.load(path, weights_only=False)


def assert_same(a, b, name=''):
    """Compare nested dicts and lists bit for bit."""
    assert type(a) is type(b), name
    if isinstance(a, dict):
        assert list(a) == list(b), name
        for key in a:
            assert_same(a[key], b[key], f'{name}.{key}')
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), name
        for i, (x, y) in enumerate(zip(a, b)):
            assert_same(x, y, f'{name}[{i}]')
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), name
    else:
        assert a == b, name


def logged_scalars(out):
    lines = [
        json.loads(line) for path in out.glob('*/vis_data/scalars.json')
        for line in path.read_text().splitlines()
    ]
    return {line['step']: line for line in lines if 'probe/knn_mAP' in line}


def scalars_of_hub(checkpoint):
    return {
        name: [history['values'].tolist(), history['counts'].tolist()]
        for name, history in checkpoint['message_hub']['log_scalars'].items()
        if not any(word in name for word in ('time', 'memory'))
    }


@pytest.mark.parametrize('workers, branch', [(0, 'online'), (1, 'target')])
def test_hook_keeps_training_bit_identical(coco_folder, workers, branch):
    without, with_hook = (
        train(coco_folder, hook, workers=workers, branch=branch)
        for hook in (False, True))
    assert set(logged_scalars(with_hook)) == {0, 1, 2}
    for epoch in (1, 2):
        a, b = (load(out / f'epoch_{epoch}.pth')
                for out in (without, with_hook))
        for key in ('state_dict', 'optimizer', 'param_schedulers'):
            assert_same(a[key], b[key], key)
        assert scalars_of_hub(a) == scalars_of_hub(b)
        assert (set(a['message_hub']['runtime_info']) == set(
            b['message_hub']['runtime_info']))
    assert_same(load(without / 'end_0.pth'), load(with_hook / 'end_0.pth'))


@pytest.mark.parametrize('model', ['', '''
model = dict(backbone=dict(type='VectorResNet'),
             neck=dict(with_avg_pool=False))
'''], ids=['maps', 'vectors'])
def test_hook_equals_test_tool(coco_folder, model):
    config = write(
        coco_folder, True, more=model + '''
pipeline.pop(2)
test_dataloader = dict(
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'), **probe_dataloader)
test_evaluator = dict(type='MultiLabelProbe')
test_cfg = dict(type='TestLoop')
''')
    out = coco_folder / 'out'
    run_tool('train', config, '--work-dir', out)
    for epoch in (1, 2):
        run_tool('test', config, out / f'epoch_{epoch}.pth', '--work-dir',
                 out, '--out', coco_folder / 'metrics.json')
        metrics = json.loads((coco_folder / 'metrics.json').read_text())
        found = logged_scalars(out)[epoch]
        for name in ('knn', 'linear'):
            key = f'probe/{name}_mAP'
            assert found[key] == pytest.approx(metrics[key], abs=1e-4)


def test_two_processes_equal_one_process(coco_folder):
    ends = {}
    for hook in (False, True):
        out = coco_folder / f'two_{hook}'
        config = write(coco_folder, hook, more='pipeline.pop(2)\n')
        # The processes of the launcher cannot import SaveRandomState.
        config.write_text(config.read_text().replace('SaveRandomState',
                                                     'WatchTraining'))
        ended = subprocess.run(
            [warm_python(), '-m', 'torch.distributed.run',
             '--nproc-per-node', '2', '--master-port', free_port(),
             str(ROOT / 'tools/train.py'), str(config), '--launcher',
             'pytorch', '--work-dir', str(out)],
            capture_output=True, text=True, timeout=240,
            env={**os.environ, 'PYTHONPATH': PYTHONPATH,
                 'CUDA_VISIBLE_DEVICES': '', 'OMP_NUM_THREADS': '1'})
        assert ended.returncode == 0, ended.stderr[-3000:]
        ends[hook] = load(out / 'epoch_2.pth')
    for key in ('state_dict', 'optimizer', 'param_schedulers'):
        assert_same(ends[False][key], ends[True][key], key)

    found = logged_scalars(coco_folder / 'two_True')
    assert set(found) == {0, 1, 2}
    # The batch-norm statistics of rank 1 differ and must not be used.
    config.write_text(config.read_text().replace('del ', '_ = ') + '''
test_dataloader = dict(
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'), **probe_dataloader)
test_evaluator = dict(type='MultiLabelProbe')
test_cfg = dict(type='TestLoop')
''')
    run_tool('test', config, coco_folder / 'two_True' / 'epoch_2.pth',
             '--work-dir', coco_folder / 'test', '--out',
             coco_folder / 'metrics.json')
    metrics = json.loads((coco_folder / 'metrics.json').read_text())
    for key in ('probe/knn_mAP', 'probe/linear_mAP'):
        assert found[2][key] == pytest.approx(metrics[key], abs=1e-4)


def test_hook_evaluates_folder_of_classes(coco_folder):
    for i in range(1, 9):
        split = 'train' if i <= 4 else 'val'
        folder = coco_folder / 'classes' / split / ('cat', 'dog')[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(coco_folder / 'images' / f'{i}.jpg', folder)
    config = write(coco_folder, False, more=f'''
custom_hooks = [dict(
    type='OnlineProbeHook', evaluator=dict(type='KNNAccuracy', k=(1, 2)),
    dataloader=dict(batch_size=4, dataset=dict(
        type='ConcatDataset', datasets=[
            dict(type='CustomDataset',
                 data_prefix={str(coco_folder / 'classes')!r} + '/' + split,
                 pipeline=[dict(type='LoadImageFromFile'),
                           dict(type='Resize', scale=(32, 32)),
                           dict(type='SetSplit', split=split),
                           dict(type='PackInputs',
                                meta_keys=('img_path', 'split'))])
            for split in ('train', 'val')])))]
''')
    out = coco_folder / 'out'
    run_tool('train', config, '--work-dir', out, '--cfg-options',
             'train_cfg.max_epochs=1')
    log, = out.glob('*/vis_data/scalars.json')
    lines = [json.loads(x) for x in log.read_text().splitlines()]
    found = {x['step']: x['knn/top1_k=1'] for x in lines
             if 'knn/top1_k=1' in x}
    assert set(found) == {0, 1}
    assert all(value in (0, 25, 50, 75, 100) for value in found.values())


def test_resumed_first_epoch_has_no_baseline(monkeypatch):
    hook = object.__new__(OnlineProbeHook)
    epochs = []
    monkeypatch.setattr(hook, '_probe', lambda _, epoch: epochs.append(epoch))
    hook.before_train(SimpleNamespace(epoch=0, iter=3))
    assert not epochs
    hook.before_train(SimpleNamespace(epoch=0, iter=0))
    assert epochs == [0]


def test_preserve_state_restores_random_state_and_cudnn(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, 'benchmark', True)

    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    with preserve_state():
        inside = draw()
        torch.manual_seed(7)
        assert not torch.backends.cudnn.benchmark
    assert draw() == inside
    assert torch.backends.cudnn.benchmark
    with pytest.raises(KeyError), preserve_state():
        draw()
        raise KeyError
    before = draw()
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    draw()
    assert draw() == before


# Mistakes of the user.

@pytest.mark.parametrize('options, message', [
    (dict(interval=0), 'interval is 0, but must be at least 1'),
    (dict(branch='both'), "branch is 'both', but must be 'online' or"),
])
def test_hook_refuses_invalid_options(options, message):
    with pytest.raises(ValueError, match=message):
        OnlineProbeHook({}, {}, **options)


def test_hook_names_missing_file_before_training(coco_folder):
    config = write(coco_folder, True)
    (coco_folder / 'labelled.json').unlink()
    message = error_of('train', config, '--work-dir', coco_folder / 'out')
    assert str(coco_folder / 'labelled.json') in message
    assert not list((coco_folder / 'out').glob('*.pth'))
