"""Trainings whose views the training device cuts, or also decodes."""
import pytest
from tiny import run_tool, watched, write_config

PIPELINE = 'train_dataloader.dataset.pipeline'
CUT = f'{PIPELINE}.1.cut=device'
DECODE = f'{PIPELINE}.0.decode=device'
# Batch norm over two images amplifies one gray level to another training,
# also with such noise in the worker. So use all images and small steps.
STEADY = ['train_dataloader.batch_size=8', 'auto_scale_lr.enable=False',
          'optim_wrapper.optimizer.lr=1e-5']


def losses(work_dir):
    return [line['loss'] for line in watched(work_dir)]


def test_resumed_device_training_equals_the_workers(coco_folder, tmp_path):
    config = write_config(coco_folder)
    run_tool('train', config, '--work-dir', tmp_path / 'worker',
             '--cfg-options', *STEADY)
    for options in (['train_cfg.max_epochs=1'], ['--resume']):
        run_tool('train', config, '--work-dir', tmp_path / 'device',
                 '--cfg-options', *STEADY, CUT, DECODE,
                 'default_hooks.view_sheet.interval=1', *options)
    # One value in 10,000 differs by one gray level.
    expected = pytest.approx(losses(tmp_path / 'worker'), abs=2e-2)
    assert losses(tmp_path / 'device') == expected
