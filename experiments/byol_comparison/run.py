"""Does UniVIP learn better than BYOL? Pre-trains both, and what lies between
them, on the same scenes from the same seeds, and measures the frozen features.

Each seed of each arm is a unit of work that leaves one json: killed, the same
command goes on where it was. docs/results.md has the design and the results.
"""
import argparse
import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from quality_report import ARMS, indicators, plot, read_results, report

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / 'experiments/byol_comparison/configs'


class Scale(NamedTuple):
    """Where an experiment's files are and how large its scenes are, beside
    what its configs say."""
    data_dir: str
    work_dir: str
    num_train: int
    image_size: tuple  # width and height that images are measured at
    object_size: int  # side of an object, likewise


SMALL = Scale('data/quality', 'work_dirs/quality', 3000, (160, 120), 64)
LARGE = Scale('data/quality_large', 'work_dirs/quality_large', 12000,
              (320, 240), 128)
FITTED = 3000  # images at most, that classifiers are fitted on
EXAMPLE = '''
examples:
  python experiments/byol_comparison/run.py --dry-run
  python experiments/byol_comparison/run.py --jobs 2
  python experiments/byol_comparison/run.py --report
on a GPU, at a larger scale (data/quality_large, work_dirs/quality_large):
  python experiments/byol_comparison/run.py --large --arms byol univip --jobs 2
another learning rate, as arms of their own:
  python experiments/byol_comparison/run.py --arms byol univip --name lr0.4 \\
      --cfg-options optim_wrapper.optimizer.lr=0.4
photographs, a quarter of them to measure on:
  python experiments/byol_comparison/run.py --data-dir data/photographs \\
      --ann-file data/coco128/annotations/instances_train2017.json \\
      --img-prefix data/coco128/train2017 --epochs 300 --name photographs
'''


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--arms', nargs='+', choices=ARMS, default=list(ARMS), metavar='ARM',
        help=f'what to train, of {", ".join(ARMS)} (default: all)')
    parser.add_argument(
        '--seeds', nargs='+', type=int, default=[1, 2, 3], metavar='N',
        help='(default: 1 2 3)')
    parser.add_argument(
        '--large', action='store_true',
        help='the version for a GPU: ResNet-18 of full width, scenes of 128 '
        'pixels, bfloat16 (experiments/byol_comparison/configs/large.py)')
    parser.add_argument(
        '--data-dir',
        help=f'made if it is not there (default: {SMALL.data_dir}; with '
        f'--large {LARGE.data_dir})')
    parser.add_argument(
        '--num-train', type=int, metavar='N',
        help=f'scenes to train on (default: {SMALL.num_train}; with --large '
        f'{LARGE.num_train}); classifiers are fitted on the first {FITTED}')
    parser.add_argument(
        '--num-val', type=int, default=1000, metavar='N',
        help='scenes to measure on (default: %(default)s)')
    parser.add_argument(
        '--ann-file', metavar='JSON',
        help='COCO json of photographs in the place of drawn scenes: three of '
        'four to train on, the fourth to measure on')
    parser.add_argument('--img-prefix', metavar='DIR', help='their folder')
    parser.add_argument(
        '--results',
        help='folder of the results, a json for each unit (default: '
        f'{SMALL.work_dir}/results; with --large {LARGE.work_dir}/results)')
    parser.add_argument(
        '--work-dir',
        help='folder of logs and checkpoints (default: '
        f'{SMALL.work_dir}/runs; with --large {LARGE.work_dir}/runs)')
    parser.add_argument(
        '--jobs', type=int, default=1, metavar='N',
        help='units at a time, one thread each, and the workers that load '
        'images (default: %(default)s)')
    parser.add_argument(
        '--epochs', type=int, metavar='N',
        help="of the pre-training (default: the configs')")
    parser.add_argument(
        '--bf16', action='store_true',
        help='pre-train under autocast to bfloat16')
    parser.add_argument(
        '--skip-detection', action='store_true',
        help='do not fine-tune the detector')
    parser.add_argument(
        '--name', help='added to the name of each arm; needed where options '
        'are changed')
    parser.add_argument(
        '--cfg-options', nargs='+', default=[], metavar='KEY=VALUE',
        help='change values of the configs')
    parser.add_argument(
        '--report', action='store_true',
        help='only print the tables of what is there')
    parser.add_argument(
        '--indicators', action='store_true',
        help='only print how what is logged goes with what is measured')
    parser.add_argument(
        '--ranks', action='store_true',
        help='only print how many directions the maps of each stage fill')
    parser.add_argument(
        '--instances', action='store_true',
        help='only print what the instances of the first epoch show')
    parser.add_argument(
        '--plot', metavar='PNG', help='also draw the results')
    parser.add_argument(
        '--neighbours', metavar='PICTURE',
        help='only draw objects and their nearest neighbours by the first '
        "seed's networks")
    parser.add_argument(
        '--dry-run', action='store_true', help='only say what would be done')
    parser.add_argument('--unit', nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.epochs is not None and args.epochs < 3:
        parser.error(f'--epochs is {args.epochs}: the warm-up takes 2, give '
                     'at least 3')
    if args.jobs < 1:
        parser.error(f'--jobs is {args.jobs}: it must be at least 1')
    changed = [f'--{name.replace("_", "-")}' for name in (
        'cfg_options', 'bf16', 'epochs', 'skip_detection', 'ann_file')
        if getattr(args, name)]
    if changed and not args.name:
        parser.error(f"{changed[0]} without --name: the results would pass "
                     "for those of the configs' and of the drawn scenes; give "
                     '--name NAME')
    if bool(args.ann_file) != bool(args.img_prefix):
        parser.error('--ann-file and --img-prefix: give both or none')
    scale = scale_of(args)
    args.bf16 |= args.large
    args.data_dir = args.data_dir or scale.data_dir
    if args.num_train is None:
        args.num_train = scale.num_train
    args.results = args.results or f'{scale.work_dir}/results'
    args.work_dir = args.work_dir or f'{scale.work_dir}/runs'
    if args.ann_file and args.data_dir in (SMALL.data_dir, LARGE.data_dir):
        parser.error("--ann-file would write over the drawn scenes of "
                     f"'{args.data_dir}': give another --data-dir")
    return args


def scale_of(args: argparse.Namespace) -> Scale:
    return LARGE if args.large else SMALL


# The data.


def make_data(args: argparse.Namespace) -> None:
    """Scenes or photographs, the proposals of selective search, and a file
    of none. Two that start at the same time do it one after the other."""
    from filelock import FileLock
    folder = Path(args.data_dir)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f'{folder}.lock'):
        write_data(args, folder)


def write_data(args: argparse.Namespace, folder: Path) -> None:
    from univip_mm.io.coco_json import read_coco
    from univip_mm.proposals import ProposalFile, write_proposals
    if args.ann_file:
        split_photographs(args.ann_file, args.img_prefix, folder)
    else:
        there = folder / 'annotations/train.json'
        if there.is_file():
            number = len(read_coco(there)['images'])
            if number != args.num_train:
                raise ValueError(
                    f"'{folder}' has {number} images to train on, not "
                    f'{args.num_train}: give another --data-dir, or delete it')
        run('demo/make_data.py', folder, '--num-train', args.num_train,
            '--num-val', args.num_val, '--seed', 1)
    proposals = folder / 'proposals/train.npz'
    ann_file = folder / 'annotations/train.json'
    run('generate_proposals.py', '--img-prefix', folder / 'train',
        '--ann-file', ann_file, '--out', proposals, '--min-size', 32,
        '--max-side', 128)
    images = read_coco(ann_file)['images']
    write_proposals(
        folder / 'proposals/none.npz', {x['id']: [] for x in images},
        dict(method='none', rules=ProposalFile(proposals).meta['rules']),
        {x['id']: x['file_name'] for x in images})


def split_photographs(ann_file: str, img_prefix: str, folder: Path) -> None:
    """Three of four images to ``train``, the fourth to ``val``, as links."""
    from univip_mm.io.coco_json import read_coco
    content = read_coco(ann_file)
    for key in ('annotations', 'categories'):
        if key not in content:
            raise ValueError(f"'{ann_file}' has no '{key}': what is learnt is "
                             'measured by them; give a json of objects')
    for split in ('train', 'val'):
        images = [x for i, x in enumerate(content['images'])
                  if (i % 4 == 3) == (split == 'val')]
        ids = {x['id'] for x in images}
        path = folder / f'annotations/{split}.json'
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix('.part')
        part.write_text(json.dumps(dict(
            images=images, categories=content['categories'],
            annotations=[x for x in content['annotations']
                         if x['image_id'] in ids])))
        part.replace(path)  # another unit may be reading it
        for image in images:
            link = folder / split / image['file_name']
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.is_symlink():
                link.symlink_to(
                    Path(img_prefix, image['file_name']).resolve())


def run(tool: str, *options) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / 'tools' / tool), *map(str, options)])
    if done.returncode:
        raise SystemExit(f'error: {tool} ended with exit code '
                         f'{done.returncode}; its message stands above')


# One unit: an arm and a seed.


def result_path(args: argparse.Namespace, arm: str, seed: int) -> Path:
    name = f'{arm}-{args.name}' if args.name else arm
    return Path(args.results) / f'{name}-seed{seed}.json'


def run_unit(args: argparse.Namespace, arm: str, seed: int) -> None:
    """Train and measure, and write the result."""
    import time

    import torch
    torch.set_num_threads(1)
    from mmengine.device import get_device
    from mmengine.runner import set_random_seed

    from experiments.byol_comparison.detection import fine_tune, load_boxes
    from experiments.byol_comparison.evaluate import measure
    train, val = load_splits(args)
    start = time.time()
    cfg = load_config(args, 'univip' if arm in ('random', 'supervised')
                      else arm, seed)
    check_settings(args, cfg)
    set_random_seed(seed)
    if arm == 'random':
        model, curve = build_model(cfg), []
    elif arm == 'supervised':
        model, curve = train_supervised(cfg, train)
    else:
        model, curve = pretrain(cfg, args.bf16)
    seconds = time.time() - start
    backbone = model.backbone.to(get_device())
    preprocessor = build_model(cfg).data_preprocessor
    scores = measure(backbone, preprocessor, train, val)
    weights = backbone_path(args, arm, seed)
    weights.parent.mkdir(parents=True, exist_ok=True)
    torch.save({key: value.cpu() for key, value in
                backbone.state_dict().items()}, weights)
    if not args.skip_detection:
        # Few labels and few steps: what a pre-training is for.
        boxes = (load_boxes(
            Path(args.data_dir, f'annotations/{split}.json'),
            Path(args.data_dir, split), scale_of(args).image_size, number)
            for split, number in (('train', 500), ('val', 500)))
        scores.update(fine_tune(backbone, preprocessor, *boxes,
                                train.labels.shape[1], epochs=8, seed=seed))
    result = dict(
        arm=arm, name=args.name, seed=seed, epochs=cfg.train_cfg.max_epochs,
        options=args.cfg_options, bf16=args.bf16, large=args.large,
        seconds=round(seconds),
        num_train=len(train.images), num_val=len(val.images), **scores,
        curve=curve)
    path = result_path(args, arm, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix('.part')
    part.write_text(json.dumps(result, indent=1))
    part.replace(path)


def check_settings(args: argparse.Namespace, cfg) -> None:
    """Whether what is in the work dir was begun with the same settings: it
    would be gone on with, and told as if it had been.

    Raises:
        ValueError: It was not.
    """
    path = Path(cfg.work_dir) / 'settings.json'
    settings = dict(
        config=cfg.to_dict(), bf16=args.bf16, num_train=args.num_train,
        num_val=args.num_val, ann_file=args.ann_file)
    text = json.dumps(settings, indent=1, default=str)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    elif path.read_text() != text:
        raise ValueError(f"'{cfg.work_dir}' is of a run with other settings: "
                         'give another --name or --work-dir, or delete it')


def check_result(args: argparse.Namespace, path: Path) -> None:
    """Whether a result that is there is of the settings that are asked for.

    Raises:
        ValueError: It is not.
    """
    result = json.loads(path.read_text())
    wanted = dict(options=args.cfg_options, bf16=args.bf16,
                  large=args.large)
    if args.epochs is not None:
        wanted['epochs'] = args.epochs
    if not args.ann_file:
        wanted.update(num_train=args.num_train, num_val=args.num_val)
    # The first results have no word of bf16 and large: they are without.
    other = [f'{key} {result.get(key, False)}, not {value}'
             for key, value in wanted.items()
             if result.get(key, False) != value]
    if 'box_AP50' not in result and not args.skip_detection:
        other.append('no detection')
    if other:
        raise ValueError(f"'{path}' is of other settings ({other[0]}): give "
                         'another --name or --results')


def backbone_path(args: argparse.Namespace, arm: str, seed: int) -> Path:
    return (Path(args.work_dir) / result_path(args, arm, seed).stem
            / 'backbone.pth')


def load_splits(args: argparse.Namespace) -> list:
    from experiments.byol_comparison.evaluate import load_split
    data = Path(args.data_dir)
    return [
        load_split(
            data / f'annotations/{split}.json', data / split,
            scale_of(args).image_size, scale_of(args).object_size, objects,
            max_images=FITTED)
        for split, objects in (('train', 8000), ('val', 4000))]


def load_config(args: argparse.Namespace, arm: str, seed: int):
    from mmengine.config import Config, DictAction
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    cfg = Config.fromfile(CONFIGS / f'{arm}.py')
    if args.large:
        large = Config.fromfile(CONFIGS / 'large.py').to_dict()
        set_view_sizes(cfg.train_dataloader.dataset.pipeline,
                       large.pop('view_sizes'))
        cfg.merge_from_dict(large)
    if args.cfg_options:
        cfg.merge_from_dict(
            parser.parse_args(['--cfg-options',
                               *args.cfg_options]).cfg_options)
    cfg.train_dataloader.dataset.data_root = f'{args.data_dir}/'
    if args.epochs is not None:
        cfg.train_cfg.max_epochs = args.epochs
    cfg.param_scheduler[-1].end = cfg.train_cfg.max_epochs
    cfg.randomness = dict(seed=seed)
    cfg.work_dir = str(
        Path(args.work_dir) / result_path(args, arm, seed).stem)
    cfg.resume = True  # where there is a checkpoint
    return cfg


def set_view_sizes(steps: list, sizes: dict) -> None:
    """Set the options of the steps of a pipeline, by their type; of those
    within a host's ``MultiView`` too."""
    for step in steps:
        step.update(sizes.get(step['type'], {}))
        for inner in step.get('transforms', []):
            set_view_sizes(inner, sizes)


def build_model(cfg):
    from mmengine.registry import init_default_scope

    from univip_mm.registry import MODELS
    init_default_scope('univip_mm')
    model = MODELS.build(cfg.model)
    model.init_weights()
    return model


def pretrain(cfg, bf16: bool = False) -> tuple:
    """Train as tools/train.py does. The model, and the losses of each epoch:
    a dict of means for each."""
    import torch
    from mmengine.device import get_device
    from mmengine.runner import Runner

    from univip_mm.engine.checkpoint import find_checkpoint
    find_checkpoint(cfg)
    runner = Runner.from_cfg(cfg)
    if bf16:
        cast = torch.autocast(get_device(), torch.bfloat16)
        runner.model.loss = cast(runner.model.loss)
    model = runner.train()
    epochs = defaultdict(lambda: defaultdict(list))
    for log in sorted(Path(cfg.work_dir).glob('*/vis_data/scalars.json')):
        for line in map(json.loads, log.read_text().splitlines()):
            for key, value in line.items():
                if 'loss' in key or key in ('projection_std', 'plan_entropy',
                                            'proposal_share',
                                            'uniform_marginals'):
                    epochs[line['epoch']][key].append(value)
    curve = [{key: round(float(np.mean(values)), 4)
              for key, values in epochs[number].items()}
             for number in sorted(epochs)]
    return model, curve


def train_supervised(cfg, train) -> tuple:
    """The same backbone, told what is on each image: the upper bound. The
    model, and the loss of each epoch."""
    import torch
    from mmengine.device import get_device
    from torch import nn
    from torch.nn.functional import binary_cross_entropy_with_logits
    model = build_model(cfg).to(get_device())
    backbone, normalise = model.backbone, model.data_preprocessor
    head = nn.Linear(cfg.model.neck.in_channels, train.labels.shape[1])
    head = head.to(get_device())
    parameters = [*backbone.parameters(), *head.parameters()]
    epochs, batch = cfg.train_cfg.max_epochs, 64
    steps = epochs * (len(train.images) // batch)
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9,
                                weight_decay=1e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.1, total_steps=steps)
    labels = torch.from_numpy(train.labels).float().to(get_device())
    backbone.train()
    curve = []
    for _ in range(epochs):
        losses = []
        order = torch.randperm(len(labels))[:len(labels) // batch * batch]
        for chosen in order.split(batch):
            images = train.images[chosen].to(get_device()).float()
            images = (images - normalise.mean) / normalise.std
            if torch.rand(()) < 0.5:
                images = images.flip(-1)
            images = images.contiguous(memory_format=torch.channels_last)
            logits = head(backbone(images)[-1].mean((2, 3)))
            loss = binary_cross_entropy_with_logits(logits, labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        curve.append(dict(loss=round(float(np.mean(losses)), 4)))
    return model, curve


# All units.


def run_units(args: argparse.Namespace) -> None:
    """Run what has no result yet, seed after seed."""
    from univip_mm.utils.progress import track
    units = [(arm, seed) for seed in args.seeds for arm in args.arms]
    missing = []
    for unit in units:
        path = result_path(args, *unit)
        if path.is_file():
            check_result(args, path)
        else:
            missing.append(unit)
    print(f'{len(units)} units, {len(units) - len(missing)} of them done')
    if args.dry_run:
        for arm, seed in missing:
            print(f'to do: {arm}, seed {seed}: {result_path(args, arm, seed)}')
        return
    if missing:
        make_data(args)
    failed = []
    bar = track(missing, unit='unit')
    running = []
    for arm, seed in missing:
        running.append((arm, seed, start_unit(args, arm, seed)))
        while len(running) >= args.jobs:
            running = wait_for_one(running, failed, bar)
    while running:
        running = wait_for_one(running, failed, bar)
    bar.close()
    if failed:
        raise SystemExit('error: these units failed: ' + '; '.join(failed))


def start_unit(args: argparse.Namespace, arm: str,
               seed: int) -> subprocess.Popen:
    log = Path(args.work_dir) / f'{result_path(args, arm, seed).stem}.log'
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, 'a') as file:
        return subprocess.Popen(
            [sys.executable, __file__, *sys.argv[1:], '--unit', arm,
             str(seed)], stdout=file, stderr=subprocess.STDOUT,
            env=dict(os.environ, OMP_NUM_THREADS='1'))


def wait_for_one(running: list, failed: list, bar) -> list:
    """Those that still run, once one of them has ended."""
    import time
    while all(process.poll() is None for *_, process in running):
        time.sleep(0.2)
    for arm, seed, process in running:
        if process.poll() is not None:
            bar.update()
            if process.returncode:
                failed.append(f'{arm}, seed {seed} (its log is in the work '
                              'dir)')
    return [x for x in running if x[2].poll() is None]


def describe_instances(args: argparse.Namespace) -> str:
    """What the instances of a first epoch show, as a table in Markdown: the
    share that is about an object (IoU of at least 0.5 with its box), and the
    share that is background (less than a quarter of it within any box)."""
    from mmengine.registry import init_default_scope

    from univip_mm.io.boxes import iou, xywh_to_xyxy
    from univip_mm.io.coco_json import read_coco
    from univip_mm.registry import DATASETS
    from univip_mm.visualization.training_views import open_views
    content = read_coco(Path(args.data_dir) / 'annotations/train.json')
    objects = defaultdict(list)
    for thing in content['annotations']:
        objects[thing['image_id']].append(thing['bbox'])
    lines = ['| instances | IoU >= 0.5 with an object | background |',
             '|---|---|---|']
    for arm in ('univip', 'univip_random_boxes'):
        cfg = load_config(args, arm, args.seeds[0])
        init_default_scope('univip_mm')
        dataset = open_views(
            DATASETS.build(cfg.train_dataloader.dataset)).dataset
        dataset.set_epoch(args.seeds[0], 0)
        overlaps, within = [], []
        for i in range(len(dataset)):
            sample = dataset[i]
            boxes = sample['instance_boxes']
            truth = xywh_to_xyxy(objects[sample['img_id']])
            overlaps += iou(boxes, truth).max(axis=1).tolist()
            within += [covered(box, truth) for box in boxes]
        about = np.mean(np.array(overlaps) >= 0.5)
        background = np.mean(np.array(within) < 0.25)
        lines.append(f'| {ARMS[arm]} | {about:.0%} | {background:.0%} |')
    return '\n'.join(lines)


def covered(box: np.ndarray, others: np.ndarray) -> float:
    """The share of a box, xyxy in whole pixels, that lies within others."""
    x1, y1, x2, y2 = map(int, box)
    inside = np.zeros((y2 - y1, x2 - x1), bool)
    for a1, b1, a2, b2 in np.round(others).astype(int).tolist():
        inside[max(b1 - y1, 0):max(b2 - y1, 0),
               max(a1 - x1, 0):max(a2 - x1, 0)] = True
    return float(inside.mean())


# What the networks see.


def units_with_network(args: argparse.Namespace, seeds: list) -> list:
    """Of the arms and these seeds, those that are trained.

    Raises:
        FileNotFoundError: There is none.
    """
    units = [(arm, seed) for arm in args.arms for seed in seeds
             if backbone_path(args, arm, seed).is_file()]
    if not units:
        raise FileNotFoundError(
            f"'{args.work_dir}' has no network of arms "
            f'{", ".join(args.arms)} and seeds {", ".join(map(str, seeds))}: '
            'train them first, or give their --arms, --seeds and --name')
    return units


def load_network(args: argparse.Namespace, arm: str, seed: int) -> tuple:
    """A trained backbone, and the preprocessor that it takes its pixels
    from."""
    import torch
    from mmengine.logging import MMLogger
    MMLogger.get_current_instance().setLevel('WARNING')  # not each weight
    model = build_model(load_config(args, 'univip', seed))
    model.backbone.load_state_dict(
        torch.load(backbone_path(args, arm, seed), weights_only=True))
    model.backbone.eval()  # the host's returns nothing
    return model.backbone, model.data_preprocessor


def describe_ranks(args: argparse.Namespace) -> str:
    """The effective rank of what each stage of the networks gives for whole
    images, as a table in Markdown: how many directions its channels fill.

    Raises:
        FileNotFoundError: There is no network.
    """
    import torch

    from experiments.byol_comparison.evaluate import (
        effective_rank,
        estimate_statistics,
    )
    units = units_with_network(args, args.seeds)
    _, val = load_splits(args)
    images = val.images[:128]
    lines = []
    for arm, seed in units:
        backbone, pixels = load_network(args, arm, seed)
        backbone.out_indices = (0, 1, 2, 3)
        estimate_statistics(backbone, images, pixels)
        with torch.no_grad():
            maps = backbone((images.float() - pixels.mean) / pixels.std)
        ranks = [f'{effective_rank(x):.1f}' for x in maps]
        lines.append(f'| {ARMS[arm]} | {seed} | {" | ".join(ranks)} |')
    channels = [x.shape[1] for x in maps]
    head = ' | '.join(f'stage {i}, of {number}'
                      for i, number in enumerate(channels, 1))
    return '\n'.join([f'| arm | seed | {head} |', '|---' * 6 + '|', *lines])


def plot_neighbours(args: argparse.Namespace, path: str) -> None:
    """Objects of the second split, and their nearest ones of the first, by
    the features of each arm."""
    import torch
    from matplotlib.figure import Figure

    from experiments.byol_comparison.evaluate import pooled_features
    seed = args.seeds[0]
    arms = [arm for arm, _ in units_with_network(args, [seed])]
    train, val = load_splits(args)
    # One object of each class, of eight classes at most.
    asked = [int((val.classes == c).nonzero()[0])
             for c in val.classes.unique().tolist()][:8]
    width, shown = 1 + len(arms), 5
    figure = Figure(figsize=(1.0 + 3.6 * len(arms), 0.85 * len(asked) + 0.4),
                    layout='constrained')
    panels = figure.subplots(len(asked), width, squeeze=False,
                             width_ratios=[1] + [shown] * len(arms))
    for row, one in enumerate(asked):
        panels[row, 0].imshow(val.objects[one].permute(1, 2, 0))
    for column, arm in enumerate(arms, 1):
        backbone, pixels = load_network(args, arm, seed)
        known, queries = (
            torch.nn.functional.normalize(
                pooled_features(backbone, pictures, pixels))
            for pictures in (train.objects, val.objects[asked]))
        nearest = (queries @ known.T).topk(shown).indices
        for row, chosen in enumerate(nearest):
            right = train.classes[chosen] == val.classes[asked[row]]
            strip = [framed(picture, (0, 160, 0) if fits else (200, 0, 0))
                     for picture, fits in zip(train.objects[chosen], right)]
            panels[row, column].imshow(np.concatenate(strip, axis=1))
        panels[0, column].set_title(ARMS[arm], fontsize='small')
    for panel in panels.flat:
        panel.set_axis_off()
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)


def framed(picture, colour: tuple) -> np.ndarray:
    """A picture (3, S, S) in a frame of 4 pixels, (S + 8, S + 8, 3)."""
    side = picture.shape[-1] + 8
    canvas = np.full((side, side, 3), colour, np.uint8)
    canvas[4:-4, 4:-4] = picture.permute(1, 2, 0)
    return canvas


def main() -> None:
    args = parse_args()
    try:
        if args.unit:
            run_unit(args, args.unit[0], int(args.unit[1]))
            return
        if args.instances:
            print(describe_instances(args))
            return
        if args.ranks:
            print(describe_ranks(args))
            return
        if args.neighbours:
            plot_neighbours(args, args.neighbours)
            print(f'picture: {args.neighbours}')
            return
        if not args.report and not args.indicators:
            run_units(args)
        if not args.dry_run:
            results = read_results(Path(args.results))
            if not results:
                raise FileNotFoundError(
                    f"'{args.results}' has no results: run without --report "
                    'and --indicators')
            if args.indicators:
                print(indicators(results))
                return
            print(report(results))
            if args.plot:
                plot(results, args.plot)
                print(f'picture: {args.plot}')
    except (ValueError, FileNotFoundError) as e:
        raise SystemExit(f'error: {e}') from None


if __name__ == '__main__':
    main()
