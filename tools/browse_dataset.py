"""Draw samples of the training data: proposals, scenes, overlap, instances."""
import argparse
import os.path as osp
from typing import Optional

import numpy as np
import torch
from mmengine.config import Config, DictAction
from mmengine.dataset import Compose, default_collate
from mmengine.registry import init_default_scope
from mmengine.runner import set_random_seed

import univip_mm  # noqa: F401
from univip_mm.datasets.transforms import EncodedImage
from univip_mm.progress import track
from univip_mm.registry import DATASETS, MODELS
from univip_mm.visualization import draw_scene_sheet, draw_scenes

ROWS = 4  # of a sheet

EXAMPLE = '''
examples:
  python tools/browse_dataset.py configs/univip_r18_demo.py
  python tools/browse_dataset.py configs/univip_r50_coco.py --augment \\
      --show-number 20 --seed 1 --output-dir pictures \\
      --cfg-options train_dataloader.dataset.data_root=/data/coco/
'''


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='the config file')
    parser.add_argument(
        '--output-dir',
        '-o',
        help='folder of the pictures (default: work_dirs/CONFIG/browse)')
    parser.add_argument(
        '--show-number',
        '-n',
        type=int,
        default=8,
        metavar='N',
        help='images to draw, picked at random (default: %(default)s)')
    parser.add_argument(
        '--augment',
        action='store_true',
        help="show the views after the model's data preprocessor as well, as "
        'the network gets them')
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        help='of the picked images, their crops and their augmentation '
        '(default: %(default)s)')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='change values of the config, such as train_dataloader.dataset.'
        'data_root=/data/coco/; a list is written as key="[a,b]"')
    args = parser.parse_args()
    if args.show_number < 1:
        parser.error(f'--show-number is {args.show_number}: it must be at '
                     'least 1')
    return args


def keep_photo(results: dict) -> dict:
    """The step before ``OverlapSceneCrop``, which replaces the image."""
    photo = results['img']
    if isinstance(photo, EncodedImage):
        photo = photo.decode()
    return {**results, 'photo': photo}


def build_dataset(cfg: Config) -> tuple:
    """The training data set without its packing, and the packing.

    Raises:
        ValueError: The pipeline has no ``OverlapSceneCrop``.
    """
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    steps = getattr(getattr(dataset, 'pipeline', None), 'transforms', [])
    names = [type(step).__name__ for step in steps]
    if 'OverlapSceneCrop' not in names:
        raise ValueError(
            f'train_dataloader.dataset of {cfg.filename} is a '
            f'{type(dataset).__name__} without OverlapSceneCrop in its '
            'pipeline: give a pre-training config of UniVIP')
    crop = names.index('OverlapSceneCrop')
    pack = names.index('PackInputs') if 'PackInputs' in names else len(names)
    dataset.pipeline = Compose(steps[:crop] + [keep_photo] + steps[crop:pack])
    return dataset, Compose(steps[pack:])


def augment(batch: list, pack: Compose, preprocessor: torch.nn.Module) -> list:
    """The views of each sample as the network gets them, but for mean and
    std, which are taken back: for each sample, 2 + K arrays (h, w, 3) uint8,
    RGB."""
    data = preprocessor(
        default_collate([pack(dict(sample)) for sample in batch]),
        training=True)
    mean, std = preprocessor.mean, preprocessor.std
    views = [
        (view * std + mean).round().clamp(0, 255).byte().permute(0, 2, 3, 1)
        for view in data['inputs']
    ]
    return [[view[i].numpy() for view in views] for i in range(len(batch))]


def draw_sample(sample: dict, augmented: Optional[list] = None) -> np.ndarray:
    """A row of the sheet."""
    height, width = sample['photo'].shape[:2]
    number, proposed = len(sample['instance_boxes']), sample['num_proposed']
    return draw_scenes(
        image=sample['photo'][..., ::-1],
        proposals=sample['proposals'],
        scene_boxes=sample['scene_boxes'],
        overlap_box=sample['overlap_box'],
        instance_boxes=sample['instance_boxes'],
        num_proposed=proposed,
        views=[view[..., ::-1] for view in sample['img']],
        title=f'{osp.basename(sample["img_path"])}   {width} x {height}, '
        f'{len(sample["proposals"])} proposals; instances that are '
        f'proposals: {proposed} of {number}',
        augmented=augmented)


def browse(cfg: Config, output_dir: str, show_number: int,
           with_augmentation: bool, seed: int) -> None:
    """Draw the sheets and say where they lie."""
    set_random_seed(seed)
    dataset, pack = build_dataset(cfg)
    if hasattr(dataset, 'set_epoch'):  # as a training of this seed begins
        dataset.set_epoch(seed, 0)
    preprocessor = None
    if with_augmentation:
        preprocessor = MODELS.build({
            'type': 'UniVIPDataPreprocessor',
            **cfg.model.get('data_preprocessor', {})
        })
    picked = np.random.permutation(len(dataset))[:show_number]
    bar = track(picked)
    paths, proposed, instances = [], 0, 0
    for start in range(0, len(picked), ROWS):
        batch = [dataset[int(i)] for i in picked[start:start + ROWS]]
        augmented = [None] * len(batch)
        if preprocessor is not None:
            augmented = augment(batch, pack, preprocessor)
        rows = []
        for sample, views in zip(batch, augmented):
            rows.append(draw_sample(sample, views))
            proposed += sample['num_proposed']
            instances += len(sample['instance_boxes'])
            bar.update()
        paths.append(osp.join(output_dir, f'scenes_{len(paths) + 1:03}.png'))
        draw_scene_sheet(rows, paths[-1])
    bar.close()
    for path in paths:
        print(f'picture: {path}')
    print(f'{len(picked)} images of {len(dataset)}: {proposed} of {instances} '
          f'instances ({proposed / instances:.0%}) are proposals, the others '
          'random boxes')


def main() -> None:
    args = parse_args()
    try:
        cfg = Config.fromfile(args.config)
        if args.cfg_options is not None:
            cfg.merge_from_dict(args.cfg_options)
        init_default_scope(cfg.get('default_scope', 'univip_mm'))
        output_dir = args.output_dir or osp.join(
            'work_dirs', osp.splitext(osp.basename(args.config))[0], 'browse')
        browse(cfg, output_dir, args.show_number, args.augment, args.seed)
    except (ValueError, FileNotFoundError) as e:
        raise SystemExit(f'error: {e}') from None


if __name__ == '__main__':
    main()
