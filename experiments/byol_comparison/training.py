"""Training of a run: config, pre-training, and the supervised upper bound."""
import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from univip_mm.engine.checkpoint import find_checkpoint
from univip_mm.registry import MODELS, OPTIM_WRAPPERS

from . import models, views  # noqa: F401, to register them
from .data import pixel_cache
from .evaluate import Split
from .settings import NOT_PRETRAINED, Experiment, Run

# Logged values that a curve has besides the losses.
LOGGED = ('projection_std', 'plan_entropy', 'proposal_share',
          'uniform_marginals')


@OPTIM_WRAPPERS.register_module()
class CpuBFloat16OptimWrapper(OptimWrapper):
    """Optimizer wrapper that runs the forward pass in bfloat16 on the CPU.

    MMEngine's ``AmpOptimWrapper`` does the same, but only on a GPU.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Run the block under autocast."""
        with super().optim_context(model), torch.autocast(
                'cpu', torch.bfloat16):
            yield


def load_config(experiment: Experiment, run: Run) -> Config:
    """Return the config of a run.

    Methods without pre-training get the config of UniVIP, for its backbone
    and its number of epochs.
    """
    method = 'univip' if run.method in NOT_PRETRAINED else run.method
    cfg = Config.fromfile(experiment.scale.configs / f'{method}.py')
    if experiment.bf16:
        cfg.optim_wrapper.update(
            dict(type='AmpOptimWrapper', dtype='bfloat16', loss_scale=1.)
            if torch.cuda.is_available() else
            dict(type='CpuBFloat16OptimWrapper'))
    cfg.train_dataloader.dataset.pipeline[1] = cfg.crop
    if run.options:
        cfg.merge_from_dict(parse_options(run.options))
    cfg.train_dataloader.dataset.data_root = f'{experiment.data_dir}/'
    keep_images_in_memory(cfg, str(pixel_cache(experiment)),
                          torch.cuda.is_available())
    cfg.start.seed = run.seed
    cfg.custom_hooks = [cfg.start]
    if experiment.epochs is not None:
        cfg.train_cfg.max_epochs = experiment.epochs
    cfg.param_scheduler[-1].end = cfg.train_cfg.max_epochs
    cfg.randomness = dict(seed=run.seed)
    cfg.work_dir = str(experiment.run_dir(run))
    cfg.resume = True  # from the last checkpoint, if there is one
    return cfg


def keep_images_in_memory(cfg: Config, cache: str, on_gpu: bool) -> None:
    """Let a config read the images from a pixel cache, in place.

    On a CPU, the file is mapped and OpenCV cuts the views. On a GPU, the file
    is in its memory, workers sample the boxes, the GPU cuts the views, and
    the step is a CUDA graph.
    """
    pipeline = cfg.train_dataloader.dataset.pipeline
    pipeline[0].cache = cache
    if not on_gpu:
        return
    pipeline[0].type = 'FindImage'
    cfg.model.data_preprocessor.update(
        type='ResidentPreprocessor', cache=cache)
    cfg.model.graph = 'cuda_graph'
    cfg.train_dataloader.update(num_workers=4, persistent_workers=True)


def parse_options(options: tuple[str, ...]) -> dict:
    """Parse KEY=VALUE strings as the option --cfg-options does."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    return parser.parse_args(['--cfg-options', *options]).cfg_options


def build_model(cfg: Config) -> nn.Module:
    """Build and initialize the model of a config."""
    with DefaultScope.overwrite_default_scope('univip_mm'):
        model = MODELS.build(cfg.model)
    models.initialize(model, cfg.start.seed, cfg.start.zero_sum)
    return model


def load_network(experiment: Experiment, run: Run) -> tuple:
    """Return a trained backbone in evaluation mode, and its preprocessor."""
    cfg = load_config(experiment, run._replace(method='univip'))
    with DefaultScope.overwrite_default_scope('univip_mm'):
        model = MODELS.build(cfg.model)
    model.backbone.load_state_dict(torch.load(
        experiment.backbone_path(run), map_location='cpu', weights_only=True))
    model.backbone.eval()  # the host's eval() returns nothing
    return model.backbone, model.data_preprocessor


def train(method: str, cfg: Config, split: Split) -> tuple:
    """Train a method.

    Args:
        method (str): One of ``METHODS``.
        cfg (Config): Config of the run.
        split (Split): Training images and labels of the supervised bound.

    Returns:
        tuple: The model, and the curve: for each epoch a dict of means.
    """
    if method == 'random':
        return build_model(cfg), []
    if method == 'supervised':
        return train_supervised(cfg, split)
    return pretrain(cfg)


def pretrain(cfg: Config) -> tuple:
    """Pre-train as tools/train.py does.

    Returns:
        tuple: The model, and for each epoch the means of the losses and of
        the values in ``LOGGED``.
    """
    find_checkpoint(cfg)
    model = Runner.from_cfg(cfg).train()
    epochs = defaultdict(lambda: defaultdict(list))
    # A resumed run has several logs.
    for log in sorted(Path(cfg.work_dir).glob('*/vis_data/scalars.json')):
        for line in map(json.loads, log.read_text().splitlines()):
            for key, value in line.items():
                if 'loss' in key or key in LOGGED:
                    epochs[line['epoch']][key].append(value)
    curve = [{key: round(float(np.mean(values)), 4)
              for key, values in epochs[number].items()}
             for number in sorted(epochs)]
    return model, curve


def train_supervised(cfg: Config, split: Split, batch_size: int = 64) -> tuple:
    """Train the same backbone with the labels: the upper bound.

    Returns:
        tuple: The model, and for each epoch the mean loss.
    """
    device = get_device()
    model = build_model(cfg).to(device)
    head = nn.Linear(cfg.model.neck.in_channels, split.labels.shape[1])
    head = head.to(device)
    epochs = cfg.train_cfg.max_epochs
    optimizer = torch.optim.SGD(
        [*model.backbone.parameters(), *head.parameters()], lr=0.1,
        momentum=0.9, weight_decay=1e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.1,
        total_steps=epochs * (len(split.images) // batch_size))
    labels = torch.from_numpy(split.labels).float().to(device)
    model.backbone.train()
    curve = []
    for _ in range(epochs):
        losses = []
        order = torch.randperm(len(labels))
        order = order[:len(labels) // batch_size * batch_size]
        for indices in order.split(batch_size):
            images = _augmented(split.images[indices], model.data_preprocessor)
            logits = head(model.backbone(images)[-1].mean((2, 3)))
            loss = binary_cross_entropy_with_logits(logits, labels[indices])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        curve.append(dict(loss=round(float(np.mean(losses)), 4)))
    return model, curve


def _augmented(images: torch.Tensor, preprocessor: nn.Module) -> torch.Tensor:
    """Normalize a uint8 batch, and mirror it with a probability of 0.5."""
    images = images.to(get_device()).float()
    images = (images - preprocessor.mean) / preprocessor.std
    if torch.rand(()) < 0.5:
        images = images.flip(-1)
    return images.contiguous(memory_format=torch.channels_last)
