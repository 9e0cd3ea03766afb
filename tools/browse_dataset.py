"""Draw training samples: proposals, scenes, overlap, instances, views."""
import argparse
import os.path as osp

import numpy as np
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope
from mmengine.runner import set_random_seed

import univip_mm  # noqa: F401
from univip_mm.registry import DATASETS, MODELS
from univip_mm.utils.progress import track
from univip_mm.visualization import draw_scene_grid
from univip_mm.visualization.training_views import (
    augmented_views,
    draw_samples,
    open_views,
)

ROWS = 4  # per picture

EXAMPLE = '''
examples:
  python tools/browse_dataset.py configs/univip_r18_demo.py
  python tools/browse_dataset.py configs/univip_r50_coco.py --epoch 100 \\
      --show-number 20 --output-dir pictures \\
      --cfg-options train_dataloader.dataset.data_root=/data/coco/
'''


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of the pre-training')
    parser.add_argument(
        '--output-dir', '-o',
        help='folder of the pictures (default: work_dirs/CONFIG/browse)')
    parser.add_argument(
        '--show-number', '-n', type=int, default=8, metavar='N',
        help='number of images, sampled at random (default: %(default)s)')
    parser.add_argument(
        '--augment', action=argparse.BooleanOptionalAction, default=True,
        help='also show the views after augmentation, pixel for pixel as the '
        'network gets them (default: yes)')
    parser.add_argument(
        '--image-size', type=int, default=620, metavar='PIXELS',
        help='largest width of the image in the picture (default: '
        '%(default)s)')
    parser.add_argument(
        '--seed', type=int, default=0,
        help='seed of the images and their views, as randomness.seed of a '
        'training (default: %(default)s)')
    parser.add_argument(
        '--epoch', type=int, default=1, metavar='N',
        help='epoch whose views are shown, from 1 (default: %(default)s)')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
        help='override values of the config, such as train_dataloader.'
        'dataset.data_root=/data/coco/; write a list as key="[a,b]"')
    args = parser.parse_args()
    if args.show_number < 1:
        parser.error(f'--show-number is {args.show_number}: it must be at '
                     'least 1')
    if args.image_size < 32:
        parser.error(f'--image-size is {args.image_size}: it must be at '
                     'least 32')
    if args.epoch < 1:
        parser.error(f'--epoch is {args.epoch}: the first is 1')
    return args


def browse(cfg: Config, output_dir: str, show_number: int,
           with_augmentation: bool, image_size: int, seed: int,
           epoch: int) -> None:
    """Write the pictures and print their paths."""
    set_random_seed(seed)
    dataset, _, pack = open_views(DATASETS.build(cfg.train_dataloader.dataset))
    if hasattr(dataset, 'set_epoch'):
        dataset.set_epoch(seed, epoch - 1)
    preprocessor = None
    if with_augmentation:
        preprocessor = MODELS.build({
            'type': 'UniVIPDataPreprocessor',
            **cfg.model.get('data_preprocessor', {})
        })
    picked = np.random.permutation(len(dataset))[:show_number]
    paths, num_proposed, num_instances = [], 0, 0
    with track(picked) as bar:
        for start in range(0, len(picked), ROWS):
            samples = [dataset[int(i)] for i in picked[start:start + ROWS]]
            augmented = None
            if preprocessor is not None:
                augmented = augmented_views(samples, pack, preprocessor)
            paths.append(
                osp.join(output_dir, f'scenes_{len(paths) + 1:03}.png'))
            draw_scene_grid(
                draw_samples(samples, augmented, image_size=image_size),
                paths[-1])
            num_proposed += sum(x['num_proposed'] for x in samples)
            num_instances += sum(len(x['instance_boxes']) for x in samples)
            bar.update(len(samples))
    for path in paths:
        print(f'picture: {path}')
    print(f'{len(picked)} images of {len(dataset)}: {num_proposed} of '
          f'{num_instances} instances ({num_proposed / num_instances:.0%}) '
          'are proposals, the others random boxes')


def main() -> None:
    """Run the command."""
    args = parse_args()
    try:
        cfg = Config.fromfile(args.config)
        if args.cfg_options is not None:
            cfg.merge_from_dict(args.cfg_options)
        init_default_scope(cfg.get('default_scope', 'univip_mm'))
        output_dir = args.output_dir or osp.join(
            'work_dirs', osp.splitext(osp.basename(args.config))[0], 'browse')
        browse(cfg, output_dir, args.show_number, args.augment,
               args.image_size, args.seed, args.epoch)
    except (ValueError, FileNotFoundError) as e:
        raise SystemExit(f'error: {e}') from None


if __name__ == '__main__':
    main()
