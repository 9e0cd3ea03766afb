"""A training that takes seconds, and a hook that records it.

Tiny configs import this module, so that the processes of a launcher find the
hook too. These processes need `PYTHONPATH`.
"""
import importlib.util
import json
import os
import socket
import sys
import time
from collections import OrderedDict
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer
from PIL import Image

from univip_mm.io.boxes import ProposalRules, filter_boxes
from univip_mm.proposals import write_proposals
from univip_mm.registry import HOOKS, MODELS, VISUALIZERS
from univip_mm.utils.unwrap import unwrap_model

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / 'configs'
# This source tree, even if another one is installed, and this module.
PYTHONPATH = f'{ROOT}{os.pathsep}{ROOT / "tests"}'
MANAGERS = (MMLogger, MessageHub, DefaultScope, Visualizer,
            VISUALIZERS.get('UniversalVisualizer'))

# Two epochs of four iterations, on the eight images of `coco_folder`.
TINY = '''
_base_ = {base!r}
custom_imports = dict(
    imports=['univip_mm', 'tiny'], allow_failed_imports=False)
model = dict(
    backbone=dict(base_channels=8, stem_channels=8),
    neck=dict(in_channels=64, hid_channels=32, out_channels=16),
    head=dict(predictor=dict(in_channels=16, hid_channels=32,
                             out_channels=16)),
    fusion_neck=dict(in_channels=16, out_channels=16))
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    dataset=dict(
        data_root={root!r},
        ann_file='train.json',
        proposal_file='train.npz',
        data_prefix=dict(img_path='images'),
        pipeline=[
            dict(type='LoadEncodedImage'),
            dict(type='OverlapSceneCrop', num_instances=4, scene_size=32,
                 instance_size=16),
            dict(type='PackInputs',
                 meta_keys=('img_path', 'img_id', 'num_proposed',
                            'view_seed'))]))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=True, begin=0, end=1,
         convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0., by_epoch=True, begin=1, end=2,
         convert_to_iter_based=True)]
train_cfg = dict(max_epochs=2)
default_hooks = dict(view_sheet=dict(interval=0))  # a second each
custom_hooks = [
    dict(type='WatchTraining', {options})]
'''


def make_coco_folder(root: Path, number: int = 8, side: int = 160) -> Path:
    """Write random images, annotations and proposals; return the folder.

    The ids are 10, 20, ...; the last image has no proposal.
    """
    rng = np.random.default_rng(0)
    (root / 'images').mkdir(parents=True)
    images, boxes = [], {}
    for i in range(1, number + 1):
        small = rng.integers(0, 256, (8, 10, 3), np.uint8)
        image = Image.fromarray(small).resize((side + 40, side))
        image.save(root / 'images' / f'{i}.jpg')
        images.append(
            dict(id=10 * i, file_name=f'{i}.jpg', width=side + 40,
                 height=side))
        boxes[10 * i] = filter_boxes(
            np.array([[x, y, x + 70, y + 70] for x in (0, 60, 120)
                      for y in (0, 45, 90)])[rng.permutation(9)],
            ProposalRules())
    boxes[10 * number] = np.zeros((0, 4), int)
    (root / 'train.json').write_text(json.dumps(dict(images=images)))
    write_proposals(root / 'train.npz', boxes,
                    dict(rules=ProposalRules().as_dict()))
    return root


def write_config(coco_folder, name='tiny.py', stop_before_epoch=None,
                 **options):
    """Write a tiny config into the folder of the data set.

    The options are those of `WatchTraining`.
    """
    options['stop_before_epoch'] = stop_before_epoch
    path = coco_folder / name
    path.write_text(
        TINY.format(
            base=str(CONFIGS / 'univip_r18_coco.py'),
            root=str(coco_folder),
            options=', '.join(f'{k}={v!r}' for k, v in options.items())))
    return path


def demo_config(name='univip_r18_demo.py', **changes):
    """Return one of our configs with changed values."""
    cfg = Config.fromfile(CONFIGS / name)
    cfg.merge_from_dict(changes)
    return cfg


def univip_config(num_instances, channels, **changes):
    """Return the config of a UniVIP model that takes milliseconds."""
    neck = dict(
        type='NonLinearNeck', hid_channels=16, out_channels=channels,
        num_layers=2, with_bias=True, with_last_bn=False,
        norm_cfg=dict(type='BN1d'))
    return dict(
        type='UniVIP',
        # The default width of the host's ResNet is too slow for a test.
        backbone=dict(type='ResNet', depth=18, base_channels=8,
                      stem_channels=8, norm_cfg=dict(type='BN')),
        neck=dict(neck, in_channels=64, with_avg_pool=True),
        head=dict(
            type='LatentPredictHead',
            loss=dict(type='CosineSimilarityLoss'),
            predictor=dict(neck, in_channels=channels, with_avg_pool=False)),
        fusion_neck=dict(type='UniVIPNeck', in_channels=channels,
                         num_instances=num_instances, out_channels=channels),
        instance_loss=dict(type='SinkhornOTLoss'),
        **changes)


class Stopped(Exception):
    """Interruption of a training, like a power cut."""


@MODELS.register_module(force=True)
class FragileResNet(MODELS.get('ResNet')):
    """ResNet that divides an image by its contrast: NaN for a black one."""

    def forward(self, x):
        return super().forward(x / x.std(dim=(2, 3), keepdim=True))


@MODELS.register_module(force=True)
class VectorResNet(MODELS.get('ResNet')):
    """ResNet that returns pooled features (B, C), like a ViT."""

    def forward(self, x):
        return super().forward(x)[-1].mean((2, 3)),


@HOOKS.register_module(force=True)
class WatchTraining(Hook):
    """Hook that writes one JSON line per iteration.

    A line has the epoch, the iteration, the learning rate, the share of the
    online weights in the update of the target, the loss, and the sum of all
    parameters (without the statistics of normalization layers).
    """
    priority = 'VERY_LOW'

    def __init__(self, stop_before_epoch=None, seconds=0., dies_at_iter=None,
                 full_disk_after_epoch=None):
        self.stop_before_epoch = stop_before_epoch
        self.seconds = seconds  # extra time of an iteration
        self.dies_at_iter = dies_at_iter  # of rank 1
        self.full_disk_after_epoch = full_disk_after_epoch

    def before_train_epoch(self, runner):
        if runner.epoch == self.stop_before_epoch:
            raise Stopped
        if runner.epoch == self.full_disk_after_epoch:
            import resource
            resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, -1))

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        online, target = self.weights(runner)
        self.before = online.clone(), target.clone()
        self.lr = runner.optim_wrapper.get_lr()['lr'][0]

    def after_train_iter(self, runner, batch_idx, data_batch=None,
                         outputs=None):
        online, target = self.before
        _, moved = self.weights(runner)
        way = online - target
        share = (moved - target).mul(way).sum() / way.square().sum()
        parameters = runner.model.parameters()
        line = dict(
            epoch=runner.epoch, iter=runner.iter, lr=self.lr,
            share=share.item(), loss=outputs['loss'].item(),
            parameters=sum(x.double().sum().item() for x in parameters))
        with open(f'{runner.work_dir}/rank{get_rank()}.jsonl', 'a') as file:
            file.write(json.dumps(line) + '\n')
        time.sleep(self.seconds)
        if runner.iter == self.dies_at_iter and get_rank() == 1:
            Path(runner.work_dir, 'died').write_text(str(time.time()))
            raise RuntimeError('a rank that dies')

    @staticmethod
    def weights(runner):
        model = unwrap_model(runner.model)
        return (model.neck.fc0.weight.detach(),
                model.target_net.module[1].fc0.weight.detach())


def watched(work_dir, rank=0):
    """Return the lines that `WatchTraining` wrote."""
    text = (Path(work_dir) / f'rank{rank}.jsonl').read_text()
    return [json.loads(line) for line in text.splitlines()]


def load_tool(name):
    """Import ``tools/NAME.py``, which may import modules of its folder."""
    path = ROOT / 'tools' / f'{name}.py'
    spec = importlib.util.spec_from_file_location(f'tool_{name}', path)
    tool = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(path.parent))
        spec.loader.exec_module(tool)
    return tool


def run_tool(name, *arguments):
    """Run ``python tools/NAME.py ARGUMENTS`` in this process.

    MMEngine's global instances and the environment are restored afterwards.
    """
    threads = cv2.getNumThreads()
    environment = dict(os.environ)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', [f'{name}.py', *map(str, arguments)])
        for manager in MANAGERS:
            patch.setattr(manager, '_instance_dict', OrderedDict())
        try:
            load_tool(name).main()
        finally:
            cv2.setNumThreads(threads)
            os.environ.clear()
            os.environ.update(environment)


def error_of(name, *arguments):
    """Run a tool that must fail; return its one-line error."""
    with pytest.raises(SystemExit) as e:
        run_tool(name, *arguments)
    message = e.value.code
    assert message.startswith('error: ') and '\n' not in message
    return message


def free_port() -> str:
    """Return an unused port of this machine."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return str(probe.getsockname()[1])
