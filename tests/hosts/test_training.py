"""Train in a user's project with the host's own tools."""
import json
import os
import sys
from pathlib import Path

import pytest
from project import HOST, losses, run, scalars, tool_of, train

# Changes for another backbone: its output channels, and no pooling if its
# output is a vector.
BACKBONES = dict(
    resnet18='''
model = dict(backbone=dict(base_channels=64, stem_channels=64),
             neck=dict(in_channels=512))''',
    resnext50='''
model = dict(backbone=dict(_delete_=True, type='ResNeXt', depth=50, groups=32,
                           width_per_group=4, norm_cfg=dict(type='BN')),
             neck=dict(in_channels=2048))''',
    vit_small='''
model = dict(backbone=dict(_delete_=True, type='VisionTransformer',
                           arch='deit-small', img_size=32, patch_size=16),
             neck=dict(in_channels=384, with_avg_pool=False{vit}))''',
    swin_tiny='''
model = dict(backbone=dict(_delete_=True, type='SwinTransformer', arch='tiny',
                           img_size=32, pad_small_map=True),
             neck=dict(in_channels=768))''')
# MMSelfSup's ViT returns patches and class token, and the neck selects.
VIT = ', vit_backbone=True' if HOST == 'mmselfsup' else ''


@pytest.fixture(scope='module')
def trained(project):
    """Train two epochs in one process and return the log."""
    return train(project, 'configs/mine.py', 'work_dirs/one')


def test_host_tool_trains_a_project(project, trained):
    assert len(trained) == 6
    assert {'loss', 'loss_scene', 'loss_scene_instance', 'loss_instance'
            } <= trained[0].keys()
    assert trained[-1]['loss'] < trained[0]['loss']
    assert (project / 'work_dirs/one/epoch_2.pth').is_file()


def test_losses_match_under_both_hosts(trained):
    # `make test-hosts` trains under MMPretrain first.
    folder = Path(os.environ['UNIVIP_SHARED'])
    (folder / f'{HOST}.json').write_text(json.dumps(losses(trained)))
    assert losses(trained) == json.loads(
        (folder / 'mmpretrain.json').read_text())


def test_resumed_training_has_the_same_losses(
        project, trained):
    resumed = train(project, 'configs/mine.py', 'work_dirs/resumed',
                    '--resume', project / 'work_dirs/one/epoch_1.pth')
    assert losses(resumed) == losses(trained[3:])


def test_two_processes_train_and_resume(project):
    command = ['bash', tool_of(HOST, 'dist_train.sh'), 'configs/two.py', 2,
               '--work-dir', 'work_dirs/two']
    port = dict(PORT=str(20000 + os.getpid() % 10000))
    run(project, *command, **port)
    whole = scalars(project / 'work_dirs/two')
    assert len(whole) == 6
    run(project, *command, '--resume',
        project / 'work_dirs/two/epoch_1.pth', **port)
    assert losses(scalars(project / 'work_dirs/two')) == losses(whole[3:])


@pytest.mark.parametrize('name', BACKBONES)
def test_other_backbones_train(project, name):
    text = BACKBONES[name].replace('{vit}', VIT)
    path = project / f'configs/{name}.py'
    path.write_text(
        f"_base_ = './mine.py'\n{text}\ntrain_cfg = dict(max_epochs=1)\n")
    log = train(project, f'configs/{name}.py', f'work_dirs/{name}')
    assert len(log) == 3 and all(
        -5 <= line['loss'] <= 5 for line in log)


def test_folder_without_json_trains(project):
    run(project, sys.executable,
        tool_of('univip_mm', 'generate_proposals.py'), '--img-prefix',
        'data/demo/val', '--out', 'data/own.npz', '--min-size', 32,
        '--max-side', 128)
    (project / 'configs/own.py').write_text('''
_base_ = './mine.py'
train_dataloader = dict(dataset=dict(
    data_root='data/', ann_file='own.images.json', proposal_file='own.npz',
    data_prefix=dict(img_path='demo/val')))
''')
    assert len(train(project, 'configs/own.py', 'work_dirs/own')) == 2


@pytest.mark.parametrize('package, config', [
    (HOST, 'configs/mine.py'), ('univip_mm', 'univip_r18_demo.py')])
def test_mim_trains_a_config(project, package, config):
    said = run(
        project, 'mim', 'train', package, config, '--gpus', 0, '--work-dir',
        f'work_dirs/mim_{package}', '--cfg-options', 'train_cfg.max_epochs=1',
        'param_scheduler.0.end=1', 'train_dataloader.batch_size=4',
        'default_hooks.checkpoint.interval=1')
    assert 'Training finished successfully' in said
    assert (project / f'work_dirs/mim_{package}/epoch_1.pth').is_file()


def test_mim_searches_the_configs(project):
    said = run(project, 'mim', 'search', 'univip_mm', '--local', '--field',
               'epochs', 'training_data', '--model', 'UniVIP')
    assert 'config id: univip_r50_coco' in said.replace('\x1b[0m', '')


def test_mim_runs_the_tools_of_the_wheel(project, trained):
    checkpoint = 'work_dirs/one/epoch_2.pth'
    for command in [
        ['inspect_proposals', 'data/demo/proposals/train.npz'],
        ['browse_dataset', 'configs/mine.py', '-n', 2],
        ['test', 'configs/mine.py', checkpoint, '--out', 'metrics.json'],
        ['extract_backbone', checkpoint, 'backbone.pth']]:
        said = run(project, 'mim', 'run', 'univip_mm', *command)
        assert 'The script finished successfully' in said
    assert (project / 'data/demo/proposals/train.inspect/histograms.png'
            ).is_file()
    assert (project / 'work_dirs/mine/browse/scenes_001.png').is_file()
    metrics = json.loads((project / 'metrics.json').read_text())
    assert 0 <= metrics['probe/linear_mAP'] <= 100
    assert (project / 'backbone.pth').is_file()


def test_missing_config_lists_the_known_configs(project):
    (project / 'configs/wrong.py').write_text(
        "_base_ = __import__('univip_mm').config_path('univip_r50.py')\n")
    said = run(project, sys.executable, tool_of(HOST, 'train.py'),
               'configs/wrong.py', '--work-dir', 'work_dirs/wrong',
               fails=True).splitlines()[-1]
    assert "no config 'univip_r50.py'" in said and 'univip_r50_coco.py' in said
