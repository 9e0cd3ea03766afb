"""Draw training samples: proposals, scenes, overlap, instances, views."""
import argparse
import os.path as osp

import numpy as np
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope
from mmengine.runner import set_random_seed

from univip_mm.datasets.wrappers import set_epoch
from univip_mm.engine.config import load_config
from univip_mm.io.outputs import check_output_folder
from univip_mm.utils.command import make_parser
from univip_mm.utils.errors import one_line_errors
from univip_mm.utils.progress import track
from univip_mm.utils.text import printable
from univip_mm.visualization import draw_scene_grid
from univip_mm.visualization.training_views import (
    augmented_views,
    draw_samples,
    open_config,
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
    parser = make_parser(__doc__, EXAMPLE)
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
    # load_config reads these options of tools/train.py.
    parser.set_defaults(launcher='none', work_dir=None, local_rank=0)
    args = parser.parse_args()
    for option, value, lowest in (('--show-number', args.show_number, 1),
                                  ('--image-size', args.image_size, 32),
                                  ('--epoch', args.epoch, 1)):
        if value < lowest:
            parser.error(f'{option} is {value}: it must be at least {lowest}')
    return args


def browse(cfg: Config, args: argparse.Namespace) -> None:
    """Write the pictures and print their paths."""
    folder = args.output_dir or osp.join(
        'work_dirs', osp.splitext(osp.basename(args.config))[0], 'browse')
    check_output_folder(folder, '--output-dir')
    set_random_seed(args.seed)
    (dataset, _, pack), preprocessor = open_config(cfg)
    set_epoch(dataset, args.seed, args.epoch - 1)
    picked = np.random.permutation(len(dataset))[:args.show_number]
    paths, num_proposed, num_instances = [], 0, 0
    with track(picked) as bar:
        for start in range(0, len(picked), ROWS):
            samples = [dataset[int(i)] for i in picked[start:start + ROWS]]
            augmented = None
            if args.augment:
                augmented = augmented_views(samples, pack, preprocessor)
            paths.append(osp.join(folder, f'scenes_{len(paths) + 1:03}.png'))
            draw_scene_grid(
                draw_samples(samples, augmented, image_size=args.image_size),
                paths[-1])
            num_proposed += sum(x['num_proposed'] for x in samples)
            num_instances += sum(len(x['instance_boxes']) for x in samples)
            bar.update(len(samples))
    print(*(f'picture: {printable(path)}' for path in paths), sep='\n')
    print(f'{len(picked)} images of {len(dataset)}: {num_proposed} of '
          f'{num_instances} instances ({num_proposed / num_instances:.0%}) '
          'are proposals, the others random boxes')


def main() -> None:
    """Run the command."""
    args = parse_args()
    with one_line_errors():
        cfg = load_config(args)
        init_default_scope(cfg.get('default_scope', 'univip_mm'))
        browse(cfg, args)


if __name__ == '__main__':
    main()
