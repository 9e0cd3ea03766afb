"""Helpers of the benchmark tests: start a script, and record its training.

The workers also import this module, through ``custom_imports``.
"""
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / 'configs' / 'benchmarks'
FOLDERS = dict(mmdet='mmdetection', mmseg='mmsegmentation',
               mmpretrain='classification')


def polygons_only(content: dict) -> dict:
    """Remove annotations without polygons, and images without annotations."""
    annotations = [x for x in content['annotations'] if x['segmentation']]
    images = {x['image_id'] for x in annotations}
    return dict(
        content, annotations=annotations,
        images=[x for x in content['images'] if x['id'] in images])


def bash(package: str, script: str, config, checkpoint, gpus: int, *arguments):
    """Run ``tools/benchmarks/.../SCRIPT.sh`` without a GPU."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = str(probe.getsockname()[1])
    folder = Path(__file__).parent
    return subprocess.run(
        ['bash',
         ROOT / 'tools' / 'benchmarks' / FOLDERS[package] / f'{script}.sh',
         *map(str, (config, checkpoint, gpus, *arguments))],
        text=True, capture_output=True, timeout=900, cwd=folder,
        env=dict(os.environ, PYTHON=sys.executable, PORT=port,
                 PYTHONPATH=str(folder), CUDA_VISIBLE_DEVICES=''))


def image() -> torch.Tensor:
    """Return the same random image in every process."""
    return torch.randn(1, 3, 64, 64, generator=torch.manual_seed(0))


@HOOKS.register_module(force=True)
class WatchBenchmark(Hook):
    """Hook that records the initial weights and the losses of a training.

    ``start.pth`` in the work dir has the initial weights of the backbone,
    including stage 4 of a C4 detector, and the output of the first layer.
    ``losses.json`` has the loss of each iteration.
    """
    priority = 'VERY_LOW'

    def before_train(self, runner):
        self.losses = []
        model = runner.model
        model = model.module if is_model_wrapper(model) else model
        weights = dict(model.backbone.state_dict())
        head = getattr(getattr(model, 'roi_head', None), 'shared_head', None)
        if head is not None:
            weights.update(head.state_dict())
        first = model.backbone.conv1(image()).detach()
        if runner.rank == 0:
            torch.save(
                dict(weights={k: v.clone() for k, v in weights.items()},
                     first=first, type=type(model.backbone.bn1).__name__),
                f'{runner.work_dir}/start.pth')

    def after_train_iter(self, runner, batch_idx, data_batch=None,
                         outputs=None):
        self.losses.append(outputs['loss'].item())

    def after_train(self, runner):
        if runner.rank == 0:
            Path(runner.work_dir, 'losses.json').write_text(
                json.dumps(self.losses))


def assert_starts_from(work_dir, checkpoint, allowed=()):
    """Check that the training started from the checkpoint's online backbone.

    The names and values of the weights must be equal, except for additional
    weights with a prefix in ``allowed``.
    """
    start = torch.load(Path(work_dir, 'start.pth'), weights_only=True)
    content = torch.load(checkpoint, weights_only=False)
    online = {name[len('backbone.'):]: value
              for name, value in content['state_dict'].items()
              if name.startswith('backbone.')}
    names = {name for name in start['weights']
             if not name.startswith(tuple(allowed) or ('\0',))}
    assert names == set(online)
    for name, value in online.items():
        assert torch.equal(start['weights'][name], value), name
    expected = torch.nn.functional.conv2d(
        image(), online['conv1.weight'], stride=2, padding=3)
    assert torch.equal(start['first'], expected)


def assert_loss_falls(work_dir, number: int):
    """Check that the mean loss of the last quarter is below the first."""
    losses = json.loads(Path(work_dir, 'losses.json').read_text())
    assert len(losses) == number
    quarter = number // 4
    first, last = (sum(x) / quarter
                   for x in (losses[:quarter], losses[-quarter:]))
    assert last < 0.9 * first, losses
