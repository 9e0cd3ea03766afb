import json
import math
import multiprocessing
from contextlib import nullcontext

import pytest
import torch
from tiny import CONFIGS, Stopped, error_of, run_tool, watched, write_config

from univip_mm.engine.checkpoint import load_checkpoint
from univip_mm.io.boxes import ProposalRules
from univip_mm.proposals import ProposalFile, write_proposals


def close(lines, key):
    return pytest.approx([line[key] for line in lines], rel=1e-3, abs=1e-7)


def test_resume_equals_uninterrupted_training(coco_folder):
    whole, parts = coco_folder / 'whole', coco_folder / 'parts'
    config = write_config(coco_folder)
    run_tool('train', config, '--work-dir', whole)
    with pytest.raises(Stopped):
        run_tool('train', write_config(coco_folder, 'stopped.py', 1),
                 '--work-dir', parts)
    assert len(watched(parts)) == 4
    run_tool('train', config, '--work-dir', parts, '--resume')

    expected, found = watched(whole), watched(parts)
    assert [x['iter'] for x in found] == list(range(8))
    assert [x['epoch'] for x in found] == [0] * 4 + [1] * 4
    assert [x['lr'] for x in found] == close(expected, 'lr')
    assert len({x['lr'] for x in expected}) > 6
    # Both branches start equal, so the first share is undefined.
    assert [x['share'] for x in found[1:]] == close(expected[1:], 'share')
    assert [x['share'] for x in found[1:]] == pytest.approx([
        0.01 * (math.cos(math.pi * k / 8) + 1) / 2 for k in range(1, 8)
    ], rel=1e-3)
    ends = [load_checkpoint(folder / 'epoch_2.pth')
            for folder in (whole, parts)]
    assert [x['meta']['iter'] for x in ends] == [8, 8]
    assert [x['state_dict']['target_net.steps'] for x in ends] == [8, 8]


def test_resume_uses_given_checkpoint(coco_folder):
    config = write_config(coco_folder)
    run_tool('train', config, '--work-dir', coco_folder / 'first')
    run_tool('train', config, '--work-dir', coco_folder / 'second',
             '--resume', coco_folder / 'first' / 'epoch_1.pth')
    assert [x['iter'] for x in watched(coco_folder / 'second')] == [4, 5, 6, 7]


def test_resume_without_checkpoint_starts_new(coco_folder):
    run_tool('train', write_config(coco_folder), '--work-dir',
             coco_folder / 'out', '--resume', '--cfg-options',
             'train_cfg.max_epochs=1')
    assert [x['iter'] for x in watched(coco_folder / 'out')] == [0, 1, 2, 3]


def test_resume_ignores_config_in_checkpoint(coco_folder):
    marker, work_dir = coco_folder / 'executed', coco_folder / 'out'
    config = write_config(coco_folder)
    run_tool('train', config, '--work-dir', work_dir, '--cfg-options',
             'train_cfg.max_epochs=1')
    checkpoint = load_checkpoint(work_dir / 'epoch_1.pth')
    checkpoint['meta']['config'] = f'open({str(marker)!r}, "w").close()'
    torch.save(checkpoint, coco_folder / 'evil.pth')
    run_tool('train', config, '--work-dir', work_dir, '--resume',
             coco_folder / 'evil.pth')
    assert [x['iter'] for x in watched(work_dir)] == list(range(8))
    assert not marker.exists()


def test_single_cpu_process_replaces_sync_bn(coco_folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    run_tool('train', write_config(coco_folder), '--work-dir',
             coco_folder / 'out', '--cfg-options', 'train_cfg.max_epochs=1',
             'model.backbone.norm_cfg.type=SyncBN',
             'model.neck.norm_cfg.type=SyncBN')
    assert len(watched(coco_folder / 'out')) == 4


def test_unreadable_image_of_worker_is_reported(coco_folder):
    broken = coco_folder / 'images' / '3.jpg'
    broken.write_text('not an image')
    run_tool('train', write_config(coco_folder), '--work-dir',
             coco_folder / 'out', '--cfg-options',
             'train_dataloader.num_workers=1',
             'default_hooks.skipped_images.max_unreadable=0.2')
    log, = (coco_folder / 'out').glob('*/*.log')
    found = [line for line in log.read_text().splitlines()
            if '1 of 8 images (12.50%) could not be read' in line]
    # Both epochs met the image, but only the first one reports it.
    assert len(found) == 1 and str(broken) in found[0]


def test_too_many_unreadable_images_stop_training(coco_folder):
    (coco_folder / 'images' / '3.jpg').write_text('not an image')
    message = error_of('train', write_config(coco_folder), '--work-dir',
                       coco_folder / 'out')
    assert '12.50%' in message and 'max_unreadable' in message
    assert 'skipped_images.txt' in message


@pytest.mark.parametrize('interval', [1, 50])
def test_stop_at_limit_loses_no_iteration(coco_folder, interval):
    image = coco_folder / 'images' / '3.jpg'
    whole, out = coco_folder / 'whole', coco_folder / 'out'
    config = write_config(coco_folder)
    allow = ['--cfg-options', 'default_hooks.skipped_images.max_unreadable=1']
    image.write_text('not an image')
    run_tool('train', config, '--work-dir', whole, *allow)
    message = error_of(
        'train', config, '--work-dir', out, '--cfg-options',
        f'default_hooks.skipped_images.interval={interval}')
    assert message.endswith(f"; saved '{out}/stopped.pth', from which "
                            '--resume continues')
    assert 'max_unreadable=0.13;' in message
    run_tool('train', config, '--work-dir', out, '--resume', *allow)
    assert watched(out) == watched(whole)


def test_not_searched_images_stop_before_first_step(coco_folder):
    write_proposals(
        coco_folder / 'train.npz',
        dict(ProposalFile(coco_folder / 'train.npz')),
        dict(rules=ProposalRules().as_dict(), unreadable=[30, 80]))
    config, out = write_config(coco_folder), coco_folder / 'out'
    message = error_of('train', config, '--work-dir', out)
    assert '2 of 8 images (25.00%) could not be read by the' in message
    assert not (out / 'rank0.jsonl').exists()
    cure = message.partition('--cfg-options ')[2]
    assert cure == 'default_hooks.skipped_images.max_unreadable=0.25'
    run_tool('train', config, '--work-dir', out, '--cfg-options', cure)
    assert len(watched(out)) == 6  # of 6 images


def test_safeguards_hold_in_repeated_data_set(coco_folder):
    path = write_config(coco_folder)
    path.write_text(path.read_text() + '''
data = dict(type='ProposalCocoDataset', **train_dataloader.pop('dataset'))
train_dataloader['dataset'] = dict(
    _delete_=True, type='RepeatDataset', times=2, dataset=data)
del data
''')
    out = coco_folder / 'out'
    run_tool('train', path, '--work-dir', out, '--cfg-options',
             'default_hooks.view_sheet.interval=50')
    assert len(watched(out)) == 16
    assert list(out.glob('*/vis_data/vis_image/views_1.png'))
    (coco_folder / 'images' / '3.jpg').write_text('not an image')
    message = error_of('train', path, '--work-dir', coco_folder / 'stopped')
    assert '1 of 8 images (12.50%) cannot be read' in message
    message = error_of(
        'train', path, '--work-dir', out, '--cfg-options',
        'train_dataloader.dataset.dataset.pipeline.1.num_instances=3')
    assert 'pipeline.1.num_instances is 3' in message


def test_auto_scale_lr_scales_with_batch(coco_folder):
    run_tool('train', write_config(coco_folder), '--work-dir',
             coco_folder / 'out', '--auto-scale-lr', '--cfg-options',
             'train_cfg.max_epochs=1', 'optim_wrapper.optimizer.lr=0.8',
             'auto_scale_lr.base_batch_size=16')
    warmed_up = watched(coco_folder / 'out')[3]['lr']
    assert warmed_up == pytest.approx(0.8 * 2 / 16)


def test_work_dir_defaults_to_config_name(coco_folder, monkeypatch):
    monkeypatch.chdir(coco_folder)
    run_tool('train', write_config(coco_folder), '--cfg-options',
             'train_cfg.max_epochs=1')
    assert (coco_folder / 'work_dirs/tiny/epoch_1.pth').is_file()


# Mistakes of the user.

def test_error_names_missing_config():
    assert "'no/config.py'" in error_of('train', 'no/config.py')


def test_error_names_invalid_config(coco_folder):
    path = coco_folder / 'images' / '1.jpg'
    assert str(path) in error_of('train', path)


def test_error_names_missing_train_dataloader(tmp_path):
    path = tmp_path / 'empty.py'
    path.write_text('model = dict()')
    assert 'has no train_dataloader' in error_of('train', path)


@pytest.mark.parametrize('name', ['train.json', 'train.npz'])
def test_error_names_missing_data_file(coco_folder, name):
    (coco_folder / name).unlink()
    message = error_of('train', write_config(coco_folder), '--work-dir',
                       coco_folder / 'out')
    assert str(coco_folder / name) in message


def test_error_names_broken_annotation_file(coco_folder):
    (coco_folder / 'train.json').write_text('{"images": [')
    message = error_of('train', write_config(coco_folder), '--work-dir',
                       coco_folder / 'out')
    assert str(coco_folder / 'train.json') in message


def test_proposals_of_other_rules_are_refused(coco_folder):
    images = json.loads((coco_folder / 'train.json').read_text())['images']
    write_proposals(coco_folder / 'train.npz',
                    {image['id']: [] for image in images},
                    dict(rules=ProposalRules(min_size=48).as_dict()))
    message = error_of('train', write_config(coco_folder), '--work-dir',
                       coco_folder / 'out')
    assert 'min_size=48' in message and 'generate_proposals.py' in message


def test_error_names_different_num_instances(coco_folder):
    message = error_of(
        'train', write_config(coco_folder), '--work-dir', coco_folder / 'out',
        '--cfg-options', 'model.fusion_neck.num_instances=3')
    assert 'pipeline.1.num_instances is 4' in message
    assert 'model.fusion_neck.num_instances is 3' in message
    assert not (coco_folder / 'out').exists()


def test_error_names_missing_checkpoint(coco_folder):
    message = error_of('train', write_config(coco_folder), '--work-dir',
                       coco_folder / 'out', '--resume', 'no/epoch_9.pth')
    assert "'no/epoch_9.pth'" in message


def test_error_names_missing_latest_checkpoint(coco_folder):
    (coco_folder / 'last_checkpoint').write_text('/gone/epoch_9.pth')
    message = error_of('train', write_config(coco_folder), '--work-dir',
                       coco_folder, '--resume')
    assert "'/gone/epoch_9.pth'" in message and str(coco_folder) in message


def test_amp_without_gpu_is_refused(coco_folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    message = error_of('train', write_config(coco_folder), '--amp')
    assert 'leave out --amp' in message


def test_auto_scale_lr_needs_base_batch_size(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text('model = dict()\ntrain_dataloader = dict(num_workers=0)')
    assert 'auto_scale_lr' in error_of('train', path, '--auto-scale-lr')


def test_sync_bn_on_several_cpu_processes_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    message = error_of('train', CONFIGS / 'univip_r50_coco.py', '--launcher',
                       'pytorch')
    assert 'model.backbone.norm_cfg.type=BN' in message


def test_train_without_gpu_does_not_pin_memory(
        coco_folder, monkeypatch, recwarn):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    run_tool('train', write_config(coco_folder), '--work-dir',
             coco_folder / 'out', '--cfg-options', 'train_cfg.max_epochs=1')
    assert not [x for x in recwarn if 'pin_memory' in str(x.message)]


@pytest.mark.parametrize('stop_before_epoch', [None, 1])
def test_train_stops_its_workers(coco_folder, stop_before_epoch):
    config = write_config(coco_folder, 'tiny.py', stop_before_epoch)
    before = {*multiprocessing.active_children()}
    with pytest.raises(Stopped) if stop_before_epoch else nullcontext():
        run_tool('train', config, '--work-dir', coco_folder / 'out',
                 '--cfg-options', 'train_dataloader.num_workers=2',
                 'train_dataloader.persistent_workers=True')
    assert before.issuperset(multiprocessing.active_children())
