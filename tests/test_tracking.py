"""Other backends for the log, set as in docs/tracking.md."""
import subprocess
import sys

import pytest
from matplotlib import get_cachedir
from tensorboard.backend.event_processing.event_accumulator import (
    EventAccumulator,
)
from tiny import PYTHONPATH, ROOT, watched, write_config
from warm_python import warm_python

LOSSES = {'loss', 'loss_scene', 'loss_scene_instance', 'loss_instance'}


def train(folder, backend):
    path = write_config(folder)
    path.write_text(path.read_text() + f'''
visualizer = dict(vis_backends=[dict(type='LocalVisBackend'), {backend}])
default_hooks = dict(view_sheet=dict(interval=1))
''')
    ended = subprocess.run(
        [warm_python(), '-W', 'ignore', ROOT / 'tools/train.py', path,
         '--work-dir', folder / 'out'], text=True, capture_output=True,
        cwd=folder, env=dict(
            PYTHONPATH=PYTHONPATH, HOME=str(folder), PATH=sys.exec_prefix,
            CUDA_VISIBLE_DEVICES='', MPLCONFIGDIR=get_cachedir()))
    assert ended.returncode == 0, ended.stderr[-3000:]
    return folder / 'out'


def test_tensorboard_logs_losses_and_images(coco_folder):
    work_dir = train(coco_folder, "dict(type='TensorboardVisBackend')")
    events = EventAccumulator(str(next(work_dir.glob('*/vis_data'))))
    events.Reload()
    names = set(events.Tags()['scalars'])
    assert LOSSES | {'lr', 'projection_std', 'plan_entropy',
                     'rank_projection', 'rank_backbone'} <= names
    # The window of the log is ten iterations, so this is the mean of all.
    logged = events.Scalars('loss')[-1].value
    seen = [line['loss'] for line in watched(work_dir)]
    assert logged == pytest.approx(sum(seen) / len(seen), rel=1e-4)
    assert [x.step for x in events.Images('views')] == [1, 2]


def test_wandb_logs_offline(coco_folder):
    work_dir = train(
        coco_folder, "dict(type='WandbVisBackend', init_kwargs=dict("
        "project='univip', mode='offline'))")
    run = next(work_dir.glob('*/vis_data/wandb/offline-run-*'))
    [record] = run.glob('run-*.wandb')
    content = record.read_bytes()
    assert all(name.encode() in content
               for name in (*LOSSES, 'rank_backbone'))
    assert list(run.glob('files/media/images/views_*.png'))
