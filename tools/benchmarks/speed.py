"""Measure every stage of the training, each beside a peer in the same run.

The two sides of a comparison take turns, image by image or call by call, so
that a machine whose speed changes does not favour one. Run nothing else
meanwhile. Writes speed.json, and pictures of how the cost grows.
"""
import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import simplejpeg
import torch
from byol_pipeline import decode, take_turns
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.fileio import get
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import ConcatDataset, DataLoader

from univip_mm.io.coco_json import read_coco
from univip_mm.models import SinkhornOTLoss, data_preprocessor, sinkhorn
from univip_mm.models.ema import ForeachCosineEMA
from univip_mm.proposals import (
    ProposalFile,
    Search,
    generate_proposals,
    write_proposals,
)
from univip_mm.registry import DATASETS, MODELS
from univip_mm.visualization import plot_growth

EXAMPLE = '''
example:
  python tools/benchmarks/speed.py --data-root data/coco128 \\
      --ann-file annotations/instances_train2017.json --img-prefix train2017
'''
ROOT = Path(__file__).parents[2]
PARTS = ('loader', 'augmentation', 'sinkhorn', 'ema', 'step', 'growth')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data-root', default='data/coco128',
                        help='COCO folder (default: %(default)s)')
    parser.add_argument('--ann-file', default='annotations/instances_train2017'
                        '.json', help='below it (default: %(default)s)')
    parser.add_argument('--img-prefix', default='train2017',
                        help='below it (default: %(default)s)')
    parser.add_argument('--num-images', type=int, default=128, metavar='N',
                        help='of the loader: the first N (default: '
                        '%(default)s)')
    parser.add_argument('--proposal-file',
                        help='made with the default rules (default: made '
                        'here, below --work-dir)')
    parser.add_argument('--numpy1', metavar='FOLDER',
                        help="NumPy 1.26 installed with pip's --target, for "
                        "the host's BYOL pipeline, which NumPy 2 breaks")
    parser.add_argument('--depth', type=int, default=50,
                        help='of the ResNet of the step (default: '
                        '%(default)s)')
    parser.add_argument('--batch-size', type=int, default=8,
                        help='of the step (default: %(default)s)')
    parser.add_argument('--threads', type=int, default=1,
                        help='of PyTorch (default: %(default)s)')
    parser.add_argument('--parts', nargs='+', choices=PARTS, default=PARTS,
                        help='what to measure (default: all)')
    parser.add_argument('--work-dir', default='work_dirs/bench',
                        help='folder of what is written (default: '
                        '%(default)s)')
    return parser.parse_args()


def device() -> str:
    return 'cuda' if torch.cuda.is_available() else 'cpu'


def timed(functions: dict, turns: int) -> dict[str, float]:
    """Seconds of a call of each, on the device; see :func:`take_turns`."""
    wait = torch.cuda.synchronize if device() == 'cuda' else None
    return take_turns({name: [function] for name, function in
                       functions.items()}, turns, wait)


# Loader


def build_dataset(args: argparse.Namespace, proposal_file: str,
                  img_path: str, load: dict, crop: dict):
    """The recipe's data set, told its epoch."""
    dataset = DATASETS.build(
        dict(
            type='ProposalCocoDataset',
            ann_file=str(Path(args.data_root, args.ann_file)),
            proposal_file=proposal_file,
            data_prefix=dict(img_path=img_path),
            indices=args.num_images,
            pipeline=[
                dict(type='LoadEncodedImage', **load),
                dict(type='OverlapSceneCrop', **crop),
                dict(type='PackInputs',
                     meta_keys=('img_path', 'img_id', 'num_proposed',
                                'view_seed'))]))
    dataset.set_epoch(0, 0)
    return dataset


def proposals_of(args: argparse.Namespace) -> str:
    """The proposal file, made where there is none yet."""
    if args.proposal_file:
        return args.proposal_file
    path = Path(args.work_dir, 'proposals.npz')
    if not path.exists():
        content = read_coco(Path(args.data_root, args.ann_file))
        generate_proposals(content['images'],
                           Path(args.data_root, args.img_prefix), path,
                           Search())
    return str(path)


def measure_loader(args: argparse.Namespace) -> dict:
    """One core: the worker's part, against decoding the JPEG alone."""
    folder = str(Path(args.data_root, args.img_prefix))
    proposals = proposals_of(args)

    def build(**load):
        return build_dataset(args, proposals, folder, load, {})

    plain, fast = build(), build(fast_dct=True)
    bilinear = build_dataset(args, proposals, folder, dict(fast_dct=True),
                             dict(interpolation='bilinear'))
    paths = [plain.get_data_info(i)['img_path'] for i in range(len(plain))]
    seconds = take_turns({
        'decode': [lambda p=p: decode(get(p)) for p in paths],
        'ours': [lambda i=i: plain[i] for i in range(len(paths))],
        'fast_dct': [lambda i=i: fast[i] for i in range(len(paths))],
        'bilinear': [lambda i=i: bilinear[i] for i in range(len(paths))],
        'resize': _resizes(plain),
    }, turns=3)
    alone = seconds['decode']
    figures = {
        'JPEG decode alone, images/s': 1 / alone,
        '2 x 224 + 4 x 96 views packed, images/s': 1 / seconds['ours'],
        'ratio to decode alone (at least 0.80)': alone / seconds['ours'],
        'ratio with fast_dct': alone / seconds['fast_dct'],
        'ratio with fast_dct and bilinear': alone / seconds['bilinear'],
        'ratio that decode and bicubic resize alone would have':
            alone / (alone + seconds['resize']),
        **_psnr_of_fast_dct(paths),
    }
    if args.numpy1:
        theirs = _byol_pipeline(args.numpy1, paths)
        figures["host's BYOL pipeline, 2 x 224, images/s"] = 1 / theirs['byol']
        # Each in units of decoding, which both processes measured.
        figures["ratio to host's BYOL (at least 4)"] = (
            (theirs['byol'] / theirs['decode']) / (seconds['ours'] / alone))
    figures.update(_photographs(args, proposals, paths))
    return figures


def _resizes(dataset) -> list:
    """For each image, a call that does nothing but resize its six views."""
    transforms = dataset.pipeline.transforms
    calls = []
    for index in range(len(dataset)):
        results = transforms[0](dataset.get_data_info(index))
        pixels = results['img'].decode()
        results = transforms[1](results)
        boxes = [*results['scene_boxes'], *results['instance_boxes']]
        crops = [(np.ascontiguousarray(pixels[y1:y2, x1:x2]), len(view))
                 for (x1, y1, x2, y2), view in zip(boxes, results['img'])]
        calls.append(lambda crops=crops: [
            cv2.resize(crop, (size, size), interpolation=cv2.INTER_CUBIC)
            for crop, size in crops])
    return calls


def _psnr_of_fast_dct(paths: list) -> dict:
    values = []
    for path in paths:
        data = Path(path).read_bytes()
        values.append(cv2.PSNR(
            simplejpeg.decode_jpeg(data, 'BGR'),
            simplejpeg.decode_jpeg(data, 'BGR', fastdct=True)))
    return {'PSNR of fast_dct, dB, mean': float(np.mean(values)),
            'PSNR of fast_dct, dB, lowest': float(np.min(values))}


def _byol_pipeline(numpy1: str, paths: list) -> dict:
    """Seconds an image of decoding and of the host's pipeline, in a process
    of its own with NumPy 1."""
    with tempfile.TemporaryDirectory() as temporary:
        listing = Path(temporary, 'paths.json')
        listing.write_text(json.dumps(paths))
        environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
        environment['PYTHONPATH'] = os.pathsep.join(
            [str(Path(numpy1).resolve()), os.environ.get('PYTHONPATH', '')])
        printed = subprocess.run(
            [sys.executable, str(Path(__file__).with_name('byol_pipeline.py')),
             str(listing)], env=environment, check=True, text=True,
            stdout=subprocess.PIPE).stdout
    return json.loads(printed.splitlines()[-1])


def _photographs(args: argparse.Namespace, proposals: str,
                 paths: list) -> dict:
    """What ``reduce`` gains on photographs of 12 megapixels: the images,
    enlarged, with their boxes; and how far the views are from those of full
    decoding."""
    content = read_coco(Path(args.data_root, args.ann_file))
    file = ProposalFile(proposals)
    images, boxes = [], {}
    with tempfile.TemporaryDirectory() as temporary:
        for image in content['images'][:16]:
            pixels = cv2.imread(str(
                Path(args.data_root, args.img_prefix, image['file_name'])))
            factor = 4000 / max(pixels.shape)
            large = cv2.resize(pixels, None, fx=factor, fy=factor,
                               interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(Path(temporary, image['file_name'])), large,
                        [cv2.IMWRITE_JPEG_QUALITY, 90])
            images.append(dict(image, width=large.shape[1],
                               height=large.shape[0]))
            boxes[image['id']] = np.floor(
                np.array(file[image['id']]) * factor).astype(int)
        listing = Path(temporary, 'images.json')
        listing.write_text(json.dumps(dict(images=images)))
        write_proposals(Path(temporary, 'a.npz'), boxes,
                        dict(rules=file.meta['rules']))

        def build(**load):
            local = argparse.Namespace(data_root=temporary, num_images=16,
                                       ann_file='images.json')
            return build_dataset(local, str(Path(temporary, 'a.npz')),
                                 temporary, load, {})

        whole, reduced = build(), build(reduce=True)
        seconds = take_turns({
            'whole': [lambda i=i: whole[i] for i in range(len(whole))],
            'reduced': [lambda i=i: reduced[i] for i in range(len(whole))],
        }, turns=2)
        psnr = [
            cv2.PSNR(a.numpy(), b.numpy())
            for i in range(len(whole)) for a, b in zip(
                whole[i]['inputs'], reduced[i]['inputs'])]
    return {
        '12 megapixels: images/s': 1 / seconds['whole'],
        '12 megapixels, reduce: images/s': 1 / seconds['reduced'],
        '12 megapixels, reduce: gain': seconds['whole'] / seconds['reduced'],
        'PSNR of its views, dB, mean': float(np.mean(np.minimum(psnr, 60))),
        'PSNR of its views, dB, lowest': float(np.min(psnr)),
    }


# What runs on the training device


def make_views(batch_size: int, num_instances: int = 4, scene: int = 224,
               instance: int = 96) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = [scene] * 2 + [instance] * num_instances
    return [torch.randint(0, 256, (batch_size, 3, size, size),
                          dtype=torch.uint8, generator=generator).to(device())
            for size in sizes]


def measure_augmentation(_: argparse.Namespace) -> dict:
    """A batch of 64 images, against the same operations in kornia."""
    import kornia.augmentation as K

    def chain(blur, solarize):
        return K.AugmentationSequential(
            K.RandomHorizontalFlip(p=0.5),
            K.ColorJitter(0.4, 0.4, 0.2, 0.1, p=0.8),
            K.RandomGrayscale(p=0.2),
            K.RandomGaussianBlur((23, 23), (0.1, 2.0), p=blur),
            K.RandomSolarize(thresholds=0., additions=0., p=solarize),
            K.Normalize(torch.tensor([0.485, 0.456, 0.406]),
                        torch.tensor([0.229, 0.224, 0.225])),
            data_keys=['input'], same_on_batch=False).to(device())

    first, second = chain(1.0, 0.0), chain(0.1, 0.2)
    views = make_views(64)
    ours = MODELS.build(dict(type='UniVIPDataPreprocessor', seed=0))
    ours = ours.to(device())
    with torch.no_grad():
        seconds = timed({
            'ours': lambda: ours(dict(inputs=views), training=True),
            'kornia': lambda: [
                chain(view[:, [2, 1, 0]].float() / 255)
                for chain, view in zip([first, second] + [first] * 4, views)]
        }, turns=5)
    return {'ours, s': seconds['ours'], 'kornia, s': seconds['kornia'],
            'ratio (at least 1; on a GPU 3)':
                seconds['kornia'] / seconds['ours']}


def _log_domain(cost, supply, demand, epsilon=0.1, num_iters=50):
    """The same iteration on logarithms, as a plain loop."""
    exponent = -cost / epsilon
    log_u = torch.zeros_like(supply)
    for _ in range(num_iters):
        log_v = demand.log() - torch.logsumexp(exponent + log_u[:, :, None], 1)
        log_u = supply.log() - torch.logsumexp(exponent + log_v[:, None], 2)
    return (exponent + log_u[:, :, None] + log_v[:, None]).exp()


def transport_problem(batch_size: int, num_instances: int) -> list:
    generator = torch.Generator().manual_seed(0)
    cost = 2 * torch.rand(batch_size, num_instances, num_instances,
                          generator=generator)
    masses = torch.rand(2, batch_size, num_instances, generator=generator)
    return [x.to(device()) for x in
            (cost, *(masses / masses.sum(2, keepdim=True)))]


def measure_sinkhorn(_: argparse.Namespace) -> dict:
    """B 64, K 4, T 50, against a loop of logsumexp."""
    problem = transport_problem(64, 4)
    seconds = timed({
        'ours': lambda: sinkhorn(*problem, largest_cost=2.0),
        'loop': lambda: _log_domain(*problem)}, turns=30)
    gap = sinkhorn(*problem, largest_cost=2.0) - _log_domain(*problem)
    return {'ours, ms': 1e3 * seconds['ours'],
            'logsumexp, ms': 1e3 * seconds['loop'],
            'ratio (at least 3)': seconds['loop'] / seconds['ours'],
            'largest difference (at most 1e-5)': gap.abs().max().item()}


def build_backbone_and_neck(depth: int) -> tuple[dict, dict]:
    cfg = Config.fromfile(str(ROOT / 'configs/univip_r50_coco.py')).model
    cfg.backbone.update(depth=depth, norm_cfg=dict(type='BN'))
    cfg.neck.update(in_channels=2048 if depth >= 50 else 512,
                    norm_cfg=dict(type='BN1d'))
    cfg.head.predictor.update(norm_cfg=dict(type='BN1d'))
    return cfg


def measure_ema(args: argparse.Namespace) -> dict:
    """ResNet and projector of the step, against the host's loop."""
    MessageHub.get_current_instance().update_info('max_iters', 10**6)
    cfg = build_backbone_and_neck(args.depth)
    model = nn.Sequential(MODELS.build(cfg.backbone), MODELS.build(cfg.neck))
    model = model.to(device())
    ours, theirs = (cls(model, momentum=0.01).to(device())
                    for cls in (ForeachCosineEMA,
                                MODELS.get('CosineEMA')))
    seconds = timed({
        'ours': lambda: ours.update_parameters(model),
        'loop': lambda: theirs.update_parameters(model)}, turns=10)
    numbers = sum(x.numel() for x in model.parameters())
    return {'million numbers': numbers / 1e6,
            'ours, ms': 1e3 * seconds['ours'],
            "host's loop, ms": 1e3 * seconds['loop'],
            'ratio (on a GPU at least 3)': seconds['loop'] / seconds['ours'],
            # read both, write one
            'ours, GB/s': 12e-9 * numbers / seconds['ours']}


class _Count(TorchDispatchMode):
    """Counts the operations, those aside that only look at a tensor in
    another way: on a GPU, each of the others starts at least one kernel or
    copy, and takes the time of the CPU that starts it."""
    number = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.number += not function.is_view
        return function(*args, **(kwargs or {}))


def operations(function) -> int:
    """The number that a call starts, the batch in one piece, as on a GPU."""
    with mock.patch.object(data_preprocessor, '_CACHED_VALUES', 2**62):
        with _Count() as count:
            function()
    return count.number


class Step:
    """A whole training step: data preprocessor, forward, backward, SGD."""

    def __init__(self, model: dict, views: list, precision=None) -> None:
        self.model = MODELS.build(model).to(device())
        self.model.train()
        self.wrapper = OptimWrapper(
            torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9))
        self.data = dict(inputs=views, data_samples=None)
        self.precision = precision

    def __call__(self) -> None:
        enabled = self.precision is not None
        with torch.autocast(device(), self.precision, enabled=enabled):
            data = self.model.data_preprocessor(self.data, training=True)
            loss, _ = self.model.parse_losses(
                self.model(**data, mode='loss'))
        self.wrapper.update_params(loss)


def measure_step(args: argparse.Namespace) -> dict:
    """UniVIP against the host's BYOL: same backbone, batch and precision."""
    MessageHub.get_current_instance().update_info('max_iters', 10**6)
    cfg = build_backbone_and_neck(args.depth)
    byol = dict(type='BYOL', backbone=cfg.backbone, neck=cfg.neck,
                head=cfg.head, base_momentum=0.01,
                data_preprocessor=dict(
                    type='SelfSupDataPreprocessor', to_rgb=True,
                    mean=[123.675, 116.28, 103.53],
                    std=[58.395, 57.12, 57.375]))
    views = make_views(args.batch_size)
    steps = dict(univip=Step(cfg, views), byol=Step(byol, views[:2]))
    if device() == 'cuda':
        fast = Config(cfg.to_dict())
        fast.data_preprocessor.channels_last = True
        steps['univip bf16'] = Step(fast, views, torch.bfloat16)
        steps['byol amp'] = Step(byol, views[:2], torch.float16)
    seconds = timed(steps, turns=2 if device() == 'cpu' else 20)
    figures = {f'{name}, s': value for name, value in seconds.items()}
    figures['ratio (at most 1.45; arithmetic alone 1.37)'] = (
        seconds['univip'] / seconds['byol'])
    for name in ('univip', 'byol'):
        figures[f'{name}, operations'] = operations(steps[name])
    if device() == 'cuda':
        figures['ratio of the fastest (at most 1)'] = (
            seconds['univip bf16'] / seconds['byol amp'])
        memory = {}
        for name, step in steps.items():
            torch.cuda.reset_peak_memory_stats()
            step()
            memory[name] = torch.cuda.max_memory_allocated() / 2**30
            figures[f'{name}, peak GiB'] = memory[name]
        figures['ratio of memory (at most 1.4)'] = (
            memory['univip'] / memory['byol'])
    return figures


# How the cost grows


def small_univip(num_instances: int) -> dict:
    cfg = build_backbone_and_neck(18)
    cfg.backbone.update(base_channels=16, stem_channels=16)
    cfg.neck.update(in_channels=128, hid_channels=256)
    cfg.head.predictor.update(hid_channels=256)
    cfg.fusion_neck.update(num_instances=num_instances)
    return cfg


def measure_growth(args: argparse.Namespace) -> dict:
    """Instances 1 to 16, batches of 8 to 512, loaders and trainers 1 to 2."""
    MessageHub.get_current_instance().update_info('max_iters', 10**6)
    folder = str(Path(args.data_root, args.img_prefix))
    proposals = proposals_of(args)
    counts = (1, 2, 4, 8, 16)
    loaders = {}
    for k in counts:
        dataset = build_dataset(args, proposals, folder, {},
                                dict(num_instances=k))
        loaders[k] = [lambda i=i, d=dataset: d[i]
                      for i in range(min(64, len(dataset)))]
    loader = take_turns(loaders, turns=2)
    problems = {k: transport_problem(64, k) for k in counts}
    solver = timed({k: (lambda p=p: sinkhorn(*p, largest_cost=2.0))
                    for k, p in problems.items()}, turns=10)
    step = timed({k: Step(small_univip(k), make_views(32, k, 64, 32))
                  for k in counts}, turns=3)
    batches = (8, 32, 128, 512)
    by_batch = {b: timed({b: Step(small_univip(4), make_views(b, 4, 64, 32))},
                         turns=2)[b] for b in batches}
    loss = SinkhornOTLoss()
    features = {b: (torch.rand(b, 4, 256, device=device()),
                    torch.rand(b, 256, device=device())) for b in batches}
    losses = timed({b: (lambda o=o, s=s: loss(o, o, s, s))
                    for b, (o, s) in features.items()}, turns=10)
    series = {
        'instances K': {
            'loader, ms an image': {k: 1e3 * v for k, v in loader.items()},
            'Sinkhorn, B 64, ms': {k: 1e3 * v for k, v in solver.items()},
            'step, ResNet-18/4, B 32, ms an image':
                {k: 1e3 * v / 32 for k, v in step.items()}},
        'batch size': {
            'step, ResNet-18/4, ms an image':
                {b: 1e3 * v / b for b, v in by_batch.items()},
            'instance loss, ms': {b: 1e3 * v for b, v in losses.items()}},
        'processes': {
            'loader workers, images/s': _loader_workers(args, proposals),
            'trainers, ResNet-18/4, images/s': _trainers()}}
    plot_growth(series, Path(args.work_dir, 'growth.png'))
    return series


def _loader_workers(args: argparse.Namespace, proposals: str) -> dict:
    """Images a second of PyTorch's loader with 1 and 2 workers."""
    dataset = build_dataset(
        args, proposals, str(Path(args.data_root, args.img_prefix)), {}, {})
    many = ConcatDataset([dataset] * max(1, 512 // len(dataset)))
    rates = {}
    for workers in (1, 2):
        loader = DataLoader(many, batch_size=32, num_workers=workers,
                            collate_fn=default_collate, drop_last=True)
        batches = iter(loader)
        next(batches)  # the workers have started
        start, number = time.perf_counter(), 0
        for _ in batches:
            number += 32
        rates[workers] = number / (time.perf_counter() - start)
    return rates


def _trainers() -> dict:
    """Images a second of 1 and 2 processes that train together, each a batch
    of 32."""
    rates = {}
    for number in (1, 2):
        printed = subprocess.run(
            [sys.executable, '-m', 'torch.distributed.run', '--standalone',
             f'--nproc_per_node={number}',
             str(Path(__file__).with_name('trainers.py'))],
            env={**os.environ, 'OMP_NUM_THREADS': '1'}, check=True, text=True,
            stdout=subprocess.PIPE).stdout
        rates[number] = float(printed.split()[-1])
    return rates


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    torch.backends.cudnn.benchmark = True  # as in the recipes
    cv2.setNumThreads(0)
    init_default_scope('univip_mm')
    Path(args.work_dir).mkdir(parents=True, exist_ok=True)
    functions = dict(
        loader=measure_loader, augmentation=measure_augmentation,
        sinkhorn=measure_sinkhorn, ema=measure_ema, step=measure_step,
        growth=measure_growth)
    out = Path(args.work_dir, 'speed.json')
    figures = json.loads(out.read_text()) if out.exists() else {}
    figures['run'] = dict(
        machine=f'{platform.machine()}, {os.cpu_count()} cores',
        device=(torch.cuda.get_device_name() if device() == 'cuda'
                else 'no GPU'),
        date=date.today().isoformat(), torch=torch.__version__,
        numpy=np.__version__, opencv=cv2.__version__,
        images=str(Path(args.data_root).name), threads=args.threads,
        depth=args.depth, batch_size=args.batch_size)
    for part in args.parts:
        figures[part] = functions[part](args)
        print_part(part, figures[part])
        out.write_text(json.dumps(figures, indent=1))
    print(f'\nfigures: {out}')


def print_part(part: str, figures: dict) -> None:
    print(f'\n{part}')
    for name, value in figures.items():
        if not isinstance(value, dict):
            print(f'  {name:58}{value:12.4g}')
            continue
        for series, points in value.items():
            print(f'  {name}: {series:40}' + '  '.join(
                f'{k}: {v:.3g}' for k, v in points.items()))


if __name__ == '__main__':
    main()
