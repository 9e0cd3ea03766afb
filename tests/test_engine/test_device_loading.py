"""Trainings whose views the training device decodes and cuts."""
import math

from tiny import run_tool, watched, write_config

PIPELINE = 'train_dataloader.dataset.pipeline'


def test_training_on_device_decoding_is_resumed(coco_folder, tmp_path):
    config = write_config(coco_folder)
    for options in (['train_cfg.max_epochs=1'], ['--resume']):
        run_tool('train', config, '--work-dir', tmp_path / 'run',
                 '--cfg-options', f'{PIPELINE}.0.decode=device',
                 f'{PIPELINE}.1.cut=device',
                 'default_hooks.view_sheet.interval=1', *options)
    lines = watched(tmp_path / 'run')
    epochs = [line['epoch'] for line in lines]
    assert set(epochs) == {0, 1} and epochs == sorted(epochs)
    assert all(math.isfinite(line['loss']) for line in lines)
