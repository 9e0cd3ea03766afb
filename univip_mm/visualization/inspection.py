"""Common part of tools/visualization: options, network, and samples."""
import argparse
import os
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple, Optional

import mmcv
import numpy as np
import torch
from mmengine.config import DictAction
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.runner import set_random_seed
from torch import nn

from ..datasets.transforms import OverlapSceneCrop
from ..datasets.wrappers import leaves, set_epoch
from ..engine.branches import BRANCHES
from ..engine.checkpoint import load_checkpoint, weights_of
from ..engine.config import check_part, load_config
from ..io.coco_annotations import read_annotations, read_categories
from ..io.coco_json import image_path, read_coco
from ..io.images import read_image
from ..io.outputs import check_output_file
from ..registry import DATASETS, MODELS
from ..utils import command
from ..utils.errors import one_line_errors
from ..utils.progress import track
from ..utils.text import printable
from .training_views import open_views


class Setup(NamedTuple):
    """Network and training data of a config and a checkpoint."""
    model: nn.Module
    dataset: Any
    crop: OverlapSceneCrop


class Crop(NamedTuple):
    """Object cut out of an image, or a whole image."""
    view: np.ndarray  # (size, size, 3) uint8, RGB
    img_path: str
    category: Optional[str]


def make_parser(description: str, examples: str, number: int, unit: str,
                has_branch: bool = True,
                has_what: bool = False) -> argparse.ArgumentParser:
    """Create the parser with the options that the tools share.

    ``number`` is the default of ``--number``, ``unit`` what the option counts.
    """
    parser = command.make_parser(description, examples)
    parser.add_argument('config', help='config of the pre-training')
    parser.add_argument('checkpoint', help='checkpoint of tools/train.py')
    parser.add_argument('--out', '-o', required=True, metavar='PNG',
                        help='picture to write')
    parser.add_argument(
        '--number', '-n', type=int, default=number, metavar='N',
        help=f'number of {unit}, sampled at random (default: %(default)s)')
    parser.add_argument(
        '--seed', type=int, default=0,
        help='seed of the samples and their crops (default: %(default)s)')
    parser.add_argument(
        '--cfg-options', nargs='+', metavar='KEY=VALUE', action=DictAction,
        help='override values of the config, such as train_dataloader.'
        'dataset.data_root=/data/coco/; write a list as key="[a,b]"')
    if has_branch:
        parser.add_argument(
            '--branch', choices=list(BRANCHES), default='online',
            help='branch whose backbone is used (default: %(default)s)')
    if has_what:
        parser.add_argument(
            '--what', choices=['objects', 'images'], default='objects',
            help="annotated boxes of the data set's json, or whole images "
            '(default: %(default)s)')
    # load_config reads these options of tools/train.py.
    parser.set_defaults(launcher='none', work_dir=None, local_rank=0)
    return parser


def run_tool(parser: argparse.ArgumentParser,
             draw: Callable[[Setup, argparse.Namespace], str],
             *at_least_one: str) -> None:
    """Parse the command line, draw the picture, and print its path.

    ``draw`` writes the picture and returns a summary to print. The values of
    ``at_least_one``, such as '--top-k', must be 1 or more.

    Raises:
        SystemExit: An input is wrong; the message is one line.
    """
    args = parser.parse_args()
    with one_line_errors():
        if not args.out.lower().endswith('.png'):
            raise ValueError(f"--out is '{args.out}': it must end in .png")
        for option in ('--number', *at_least_one):
            value = getattr(args, option.strip('-').replace('-', '_'))
            if value < 1:
                raise ValueError(f'{option} is {value}: it must be at least 1')
        check_output_file(os.path.realpath(args.out), '--out')
        summary = draw(load_setup(args), args)
    print(f'picture: {printable(args.out)}\n{summary}')


def load_setup(args: argparse.Namespace,
               device: Optional[str] = None) -> Setup:
    """Load the network, in evaluation mode, and the data of a command line.

    Args:
        args (argparse.Namespace): Options of :func:`make_parser`.
        device (str, optional): Device of the network. Defaults to a GPU if
            there is one.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: The config is not a pre-training config, or the checkpoint
            belongs to another network.
    """
    cfg = load_config(args)
    check_part(cfg, 'model')
    check_part(cfg, 'train_dataloader')
    weights = weights_of(load_checkpoint(args.checkpoint))
    init_default_scope(cfg.get('default_scope', 'univip_mm'))
    set_random_seed(args.seed)
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    own = model.state_dict()
    wrong = sorted(
        name for name in own.keys() | weights.keys()
        if name not in own or name not in weights
        or own[name].shape != getattr(weights[name], 'shape', None))
    if wrong:
        raise ValueError(
            f"'{args.checkpoint}' does not belong to the network of "
            f"'{cfg.filename}': {len(wrong)} weights do not fit, the first "
            f'{wrong[0]}; give the config that the checkpoint was trained '
            'with')
    model.load_state_dict(weights)
    model.eval().to(
        device or ('cuda' if torch.cuda.is_available() else 'cpu'))
    source = open_views(DATASETS.build(cfg.train_dataloader.dataset))
    set_epoch(source.dataset, args.seed, 0)
    return Setup(model, source.dataset, source.crop)


def pick_samples(setup: Setup, number: int) -> list[dict]:
    """Return random training samples with their views."""
    picked = np.random.permutation(len(setup.dataset))[:number]
    return [setup.dataset[int(i)] for i in picked]


def pick_crops(setup: Setup, number: int, what: str = 'objects',
               num_classes: Optional[int] = None) -> list[Crop]:
    """Return up to ``number`` random objects or images of the training data.

    Args:
        setup (Setup): Data set and crop.
        number (int): Largest number of crops.
        what (str): 'objects': annotated boxes with both sides of at least
            ``min_size`` of ``OverlapSceneCrop``, resized to the size of an
            instance. 'images': whole images, resized to the size of a scene,
            with the category of their largest object, if any.
        num_classes (int, optional): Keep the most frequent categories only.

    Raises:
        ValueError: There is no such object, or an image cannot be read.
    """
    found = _find_crops(setup, what)
    if num_classes is not None:
        counts = Counter(name for *_, name in found if name is not None)
        kept = {name for name, _ in counts.most_common(num_classes)} or {None}
        found = [x for x in found if x[2] in kept]
    picked = np.random.permutation(len(found))[:number]
    picked = sorted((found[i] for i in picked), key=lambda x: x[0])
    crops, last = [], None
    for path, box, name in track(picked, desc='reading'):
        if path != last:
            image, last = _read(path), path
        crops.append(Crop(_cut(image, box, setup.crop, path), path, name))
    return crops


def _find_crops(setup: Setup, what: str) -> list[tuple]:
    """List (path, box (x, y, w, h) or None, category or None)."""
    found: list[tuple] = []
    dataset, min_size = setup.dataset, setup.crop.rules.min_size
    for ann_file, folder in _sources(dataset):
        content = read_coco(ann_file)
        names = (read_categories(content, ann_file)
                 if content.get('categories') else None)
        objects = defaultdict(list)
        for x in read_annotations(content, ann_file, names, boxes=True):
            if not x.get('iscrowd'):
                category = x.get('category_id')
                objects[x['image_id']].append(
                    (x['bbox'], names[category] if names else str(category)))
        for image in content['images']:
            path = image_path(folder, image['file_name'])
            own = sorted(objects[image['id']],
                         key=lambda x: -x[0][2] * x[0][3])
            if what == 'images':
                found.append((path, None, own[0][1] if own else None))
            else:
                found += [(path, box, name) for box, name in own
                          if min(box[2:]) >= min_size]
    if not found:
        raise ValueError(
            f'{[x for x, _ in _sources(dataset)]} has no annotated object '
            f'with both sides of at least {min_size} pixels: give --what '
            'images')
    return found


def _sources(dataset: Any) -> list[tuple[str, str]]:
    """Return each json and the folder of its images."""
    return [source for leaf in leaves(dataset)
            for source in zip(leaf.ann_file, leaf.data_prefix['img_path'])]


def _read(path: str) -> np.ndarray:
    try:
        return read_image(path)
    except (OSError, ValueError) as e:
        raise ValueError(f"cannot read the image '{path}' ({e}): repair the "
                         'file, or remove it from the json') from None


def _cut(image: np.ndarray, box: Optional[list], crop: OverlapSceneCrop,
         path: str) -> np.ndarray:
    size = crop.scene_size
    if box is not None:
        size = crop.instance_size
        x, y, w, h = box
        image = image[max(0, int(y)):max(0, int(np.ceil(y + h))),
                      max(0, int(x)):max(0, int(np.ceil(x + w)))]
        if image.size == 0:
            raise ValueError(
                f"the annotated box {box} is outside of the image '{path}': "
                'the json is of images of another size')
    view = mmcv.imresize(image, (size, size), backend=crop.backend,
                         interpolation=crop.interpolation)
    return np.ascontiguousarray(view[..., ::-1])
