from pathlib import Path

import pytest
from visual_files import write_log

from univip_mm.visualization.run_files import read_run, shorten

CONFIG = '''train_cfg = dict(by_epoch=True, max_epochs=14)
train_dataloader = dict(batch_size=32, dataset=dict(times=2))
'''
LOG = '''System environment:
    Python: 3.11.7 (main)
    CUDA available: True
    GPU 0,1: NVIDIA H100
    PyTorch compiling details: PyTorch built with:
  - GCC 13.3
Runtime environment:
    GPU number: 8
11/27 20:30:58 - INFO - Epoch(train)  [ 2][20/21]  lr: 1.1e-02  eta: 0:03:16
'''


def write_run(out, steps=range(1, 30), work_dir='', config=CONFIG, log=LOG):
    write_log(out / work_dir, '20260101_000000', steps, time=2.,
              data_time=0.1)
    folder = out / work_dir / '20260101_000000'
    (folder / 'vis_data' / 'config.py').write_text(config)
    (folder / '20260101_000000.log').write_text(log)
    return folder


@pytest.mark.parametrize('work_dir', ['', 'checkpoints'])
def test_run_is_read_from_both_layouts(tmp_path, work_dir):
    folder = write_run(tmp_path, work_dir=work_dir)
    (folder / 'skipped_images.txt').write_text(
        '/a.jpg\ttruncated\n/b.jpg\ttoo small\n/c.jpg\ttruncated\n')
    (tmp_path / 'unreadable.txt').write_text('d\\n.jpg\tempty\nx.jpg\n')
    pictures = folder / 'vis_data' / 'vis_image'
    pictures.mkdir()
    (pictures / 'views_50.png').touch()
    (pictures / 'other_1.png').touch()
    run = read_run(tmp_path)
    assert run.work_dir == tmp_path / work_dir
    assert (run.iteration, run.max_iters, run.max_epochs) == (29, 14 * 21, 14)
    assert run.state == 'stopped'
    assert run.skipped == {'truncated': 2, 'too small': 1, 'empty': 1,
                           'not readable': 1}
    assert list(run.views) == [50]
    assert run.versions == {
        'Python': '3.11.7 (main)', 'CUDA available': 'True',
        'GPU 0,1': 'NVIDIA H100', 'GPU number': '8'}


@pytest.mark.parametrize('config, log, checkpoint, max_iters, state', [
    (CONFIG, LOG, 'epoch_14.pth', 294, 'finished'),
    (CONFIG, LOG, 'epoch_13.pth', 294, 'stopped'),
    ('train_cfg = dict(max_iters=100)', 'Iter(train) [ 40/100]  lr: 1',
     'iter_100.pth', 100, 'finished'),
    ('', '', 'epoch_3.pth', 0, 'stopped'),
])
def test_last_checkpoint_decides_the_state(tmp_path, config, log, checkpoint,
                                           max_iters, state):
    write_run(tmp_path, config=config, log=log)
    (tmp_path / 'last_checkpoint').write_text(f'/elsewhere/{checkpoint}')
    run = read_run(tmp_path)
    assert (run.max_iters, run.state) == (max_iters, state)


def test_run_without_losses_is_empty(tmp_path):
    (tmp_path / '20260101_000000' / 'vis_data').mkdir(parents=True)
    run = read_run(tmp_path, 'running')
    assert run.log == [] and run.iteration == 0 and run.state == 'running'


def test_folder_without_training_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='no training log in .*give'):
        read_run(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('text', [
    '', '[]', '{"choices": 3}', '{"choices": [1]}', '{"choi'])
def test_damaged_choices_are_left_out(tmp_path, text):
    write_run(tmp_path)
    Path(tmp_path, 'run.json').write_text(text)
    assert read_run(tmp_path).choices == []


def test_shorten_keeps_both_ends():
    assert shorten('abc', 3) == 'abc'
    assert shorten('a' * 50 + 'b' * 50, 4) == 'aa\n\n… cut …\n\nbb'
