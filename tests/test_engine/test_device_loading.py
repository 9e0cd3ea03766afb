"""Trainings whose views the training device decodes and cuts."""
import math

from tiny import run_tool, watched, write_config

PIPELINE = 'train_dataloader.dataset.pipeline'


def test_training_on_device_decoding_is_resumed(coco_folder, tmp_path):
    config = write_config(coco_folder)
    damaged = coco_folder / 'images/3.jpg'  # after the proposal search
    data = damaged.read_bytes()
    damaged.write_bytes(data[:len(data) // 2] + b'\xff\xd9')
    sheet = 'default_hooks.view_sheet.interval=1'  # decodes it in a worker
    for options in (['train_cfg.max_epochs=1'], [sheet, '--resume']):
        run_tool('train', config, '--work-dir', tmp_path / 'run',
                 '--cfg-options', f'{PIPELINE}.0.decode=device',
                 f'{PIPELINE}.1.cut=device',
                 'default_hooks.skipped_images.max_unreadable=0.2',
                 *options)
    lines = watched(tmp_path / 'run')
    epochs = [line['epoch'] for line in lines]
    assert set(epochs) == {0, 1} and epochs == sorted(epochs)
    assert all(math.isfinite(line['loss']) for line in lines)
    runs = list((tmp_path / 'run').rglob('skipped_images.txt'))
    assert len(runs) == 2
    for path in runs:
        assert path.read_text() == (
            f'{damaged}\tthe file ends before the image does\n')
        log = next(path.parent.glob('*.log')).read_text()
        assert '1 of 8 images (12.50%) could not be decoded' in log
