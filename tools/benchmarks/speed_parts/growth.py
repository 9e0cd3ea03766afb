"""Growth of the cost with instances, batch size and processes."""
import argparse
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import torch
from mmengine.dataset import default_collate
from mmengine.logging import MessageHub
from torch.utils.data import ConcatDataset, DataLoader

from univip_mm.models import SinkhornOTLoss, sinkhorn
from univip_mm.visualization import plot_growth

from .loader import Images, calls_of, find_images
from .modules import transport_problem
from .step import TrainingStep, make_batches, small_univip_config
from .timing import device, time_interleaved, time_on_device

INSTANCES = (1, 2, 4, 8, 16)
BATCH_SIZES = (8, 32, 128, 512)
PROCESSES = (1, 2)
TRAINER = Path(__file__).parents[1] / 'ddp_throughput.py'


def measure_growth(args: argparse.Namespace) -> dict:
    """Measure and plot the cost over instances, batch size and processes."""
    MessageHub.get_current_instance().update_info('max_iters', 10**6)
    images = find_images(args)
    series = {
        'instances K': _over_instances(images),
        'batch size': _over_batch_size(),
        'processes': {
            'loader workers, images/s': _loader_throughput(images),
            'trainers, ResNet-18/4, images/s': _training_throughput()}}
    plot_growth(series, Path(args.work_dir, 'growth.png'))
    return series


def small_step(batch_size: int, num_instances=4, **kwargs) -> TrainingStep:
    """Return a step of ResNet-18/4 at 64 and 32 pixels."""
    batches = make_batches(1, batch_size, num_instances, 64, 32)
    return TrainingStep(small_univip_config(num_instances), batches, **kwargs)


def _over_instances(images: Images) -> dict:
    loader = time_interleaved(
        {k: calls_of(images.dataset(crop=dict(num_instances=k)))[:64]
         for k in INSTANCES}, repeats=2)
    problems = {k: transport_problem(64, k) for k in INSTANCES}
    solver = time_on_device(
        {k: partial(sinkhorn, *p, largest_cost=2.0)
         for k, p in problems.items()}, repeats=10)
    step = time_on_device({k: small_step(32, k) for k in INSTANCES}, repeats=3)
    return {
        'loader, ms per image': {k: 1e3 * v for k, v in loader.items()},
        'Sinkhorn, B 64, ms': {k: 1e3 * v for k, v in solver.items()},
        'step, ResNet-18/4, B 32, ms per image':
            {k: 1e3 * v / 32 for k, v in step.items()}}


def _over_batch_size() -> dict:
    # One model at a time: all of them together would need more memory.
    step = {b: time_on_device({b: small_step(b)}, repeats=2)[b]
            for b in BATCH_SIZES}
    loss = SinkhornOTLoss()
    features = {b: (torch.rand(b, 4, 256, device=device()),
                    torch.rand(b, 256, device=device())) for b in BATCH_SIZES}
    losses = time_on_device(
        {b: partial(loss, o, o, s, s) for b, (o, s) in features.items()},
        repeats=10)
    return {
        'step, ResNet-18/4, ms per image':
            {b: 1e3 * v / b for b, v in step.items()},
        'instance loss, ms': {b: 1e3 * v for b, v in losses.items()}}


def _loader_throughput(images: Images) -> dict:
    """Return images per second of PyTorch's loader per number of workers."""
    dataset = images.dataset()
    many = ConcatDataset([dataset] * max(1, 512 // len(dataset)))
    rates = {}
    for workers in PROCESSES:
        loader = DataLoader(many, batch_size=32, num_workers=workers,
                            collate_fn=default_collate, drop_last=True)
        batches = iter(loader)
        next(batches)  # the time to start the workers does not count
        start = time.perf_counter()
        number = 32 * sum(1 for _ in batches)
        rates[workers] = number / (time.perf_counter() - start)
    return rates


def _training_throughput() -> dict:
    """Return images per second of DDP training per number of processes."""
    rates = {}
    for processes in PROCESSES:
        output = subprocess.run(
            [sys.executable, '-m', 'torch.distributed.run', '--standalone',
             f'--nproc_per_node={processes}', TRAINER],
            env={**os.environ, 'OMP_NUM_THREADS': '1'}, check=True, text=True,
            stdout=subprocess.PIPE).stdout
        rates[processes] = float(output.split()[-1])
    return rates
