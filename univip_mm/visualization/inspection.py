"""What the pictures of tools/visualization/ are made from: a trained network,
its training data, and what the one computes of the other.

The network is in evaluation mode and sees the views without augmentation.
"""
import argparse
import os.path as osp
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple, Optional

import mmcv
import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config, DictAction
from mmengine.dataset import BaseDataset
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.runner import set_random_seed
from torch import nn

from ..datasets.transforms import EncodedImage, OverlapSceneCrop
from ..engine.branches import BRANCHES, backbone_of
from ..engine.checkpoint import load_checkpoint
from ..engine.config import check_part, load_config
from ..io.coco_json import read_coco
from ..models.l2_normalize import l2_normalize
from ..models.sinkhorn_ot_loss import marginal, sinkhorn
from ..registry import DATASETS, MODELS
from ..utils.progress import track
from .views import open_views

BATCH = 64  # views that pass the network at a time


class Setup(NamedTuple):
    """A network and its data, as a config and a checkpoint give them."""
    cfg: Config
    model: nn.Module
    dataset: BaseDataset
    crop: OverlapSceneCrop


class Crop(NamedTuple):
    """An object cut out of an image, or a whole image."""
    picture: np.ndarray  # (size, size, 3) uint8, RGB
    img_path: str
    category: Optional[str]


class Transport(NamedTuple):
    """What the instance-instance loss of an image is computed from; row m is
    an online instance, column n a target one."""
    similarity: np.ndarray  # (K, K), cosines
    plan: np.ndarray  # (K, K), sums to one
    supply: np.ndarray  # (K,), of the online instances
    demand: np.ndarray  # (K,), of the target instances


def add_arguments(parser: argparse.ArgumentParser, number: int,
                  of_what: str) -> None:
    """The arguments that the tools share."""
    parser.add_argument('config', help='the pre-training config')
    parser.add_argument('checkpoint', help='of tools/train.py')
    parser.add_argument(
        '--out', '-o', required=True, metavar='PNG', help='picture to write')
    parser.add_argument(
        '--number', '-n', type=int, default=number, metavar='N',
        help=f'{of_what}, picked at random (default: %(default)s)')
    parser.add_argument(
        '--seed', type=int, default=0,
        help='of what is picked and how it is cropped (default: %(default)s)')
    parser.add_argument(
        '--cfg-options', nargs='+', metavar='KEY=VALUE',
        action=DictAction,
        help='change values of the config, such as train_dataloader.dataset.'
        'data_root=/data/coco/; a list is written as key="[a,b]"')
    parser.set_defaults(launcher='none', work_dir=None, local_rank=0)


def add_branch(parser: argparse.ArgumentParser) -> None:
    """The argument of the tools that look at one backbone."""
    parser.add_argument(
        '--branch', choices=BRANCHES, default='online',
        help='whose backbone (default: %(default)s)')


def run_tool(parser: argparse.ArgumentParser,
             draw: Callable[[Setup, argparse.Namespace], str]) -> None:
    """Read the command line, draw, and say where the picture lies; a user's
    mistake ends in one line."""
    args = parser.parse_args()
    try:
        if not args.out.lower().endswith('.png'):
            raise ValueError(f"--out is '{args.out}': it must end in .png")
        if args.number < 1:
            raise ValueError(f'--number is {args.number}: it must be at '
                             'least 1')
        said = draw(load_setup(args), args)
    except (ValueError, FileNotFoundError) as e:
        raise SystemExit(f'error: {e}') from None
    print(f'picture: {args.out}\n{said}')


def load_setup(args: argparse.Namespace) -> Setup:
    """The network and the data that the command line names.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: The config is none of a pre-training, or the checkpoint
            is of another network.
    """
    cfg = load_config(args)
    check_part(cfg, 'model')
    check_part(cfg, 'train_dataloader')
    checkpoint = load_checkpoint(args.checkpoint)
    init_default_scope(cfg.get('default_scope', 'univip_mm'))
    set_random_seed(args.seed)
    model = load_model(cfg, checkpoint, args.checkpoint)
    dataset, crop = load_dataset(cfg)
    if hasattr(dataset, 'set_epoch'):
        dataset.set_epoch(args.seed, 0)
    return Setup(cfg, model, dataset, crop)


def load_model(cfg: Config, checkpoint: dict, path: str) -> nn.Module:
    """The network with the checkpoint's weights, in evaluation mode.

    Raises:
        ValueError: It has not exactly these weights.
    """
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    weights = checkpoint.get('state_dict', {})
    own = model.state_dict()
    wrong = sorted(
        name for name in own.keys() | weights.keys()
        if name not in own or name not in weights
        or own[name].shape != weights[name].shape)
    if wrong:
        raise ValueError(
            f"'{path}' is not of the network in '{cfg.filename}': "
            f'{len(wrong)} weights do not fit, the first {wrong[0]}; give '
            'the config that it was trained with')
    model.load_state_dict(weights)
    model.eval()
    return model.to('cuda' if torch.cuda.is_available() else 'cpu')


def load_dataset(cfg: Config) -> tuple[BaseDataset, OverlapSceneCrop]:
    """The training data without its packing, and what crops it; see
    :class:`univip_mm.visualization.training_views.ViewSource`.

    Raises:
        ValueError: The pipeline has no ``OverlapSceneCrop``.
    """
    source = open_views(DATASETS.build(cfg.train_dataloader.dataset))
    return source.dataset, source.crop


def pick_samples(setup: Setup, number: int) -> list[dict]:
    """Random samples of the training data, with their views."""
    picked = np.random.permutation(len(setup.dataset))[:number]
    return [setup.dataset[int(i)] for i in picked]


def pick_crops(setup: Setup, number: int, what: str = 'objects',
               num_classes: Optional[int] = None) -> list[Crop]:
    """Random objects or images of the training data.

    Args:
        setup (Setup): Its jsons are read for annotations.
        number (int): At most that many.
        what (str): 'objects', the annotated boxes with both sides of at least
            ``min_size`` of ``OverlapSceneCrop``, at an instance's size; or
            'images', whole ones at a scene's size, whose category is that of
            their largest object, if any. Defaults to 'objects'.
        num_classes (int, optional): Only of that many categories, the most
            frequent ones. Defaults to None, all.

    Raises:
        ValueError: There is no such object or image.
    """
    found = []
    dataset = setup.dataset
    for ann_file, folder in zip(dataset.ann_file,
                                dataset.data_prefix['img_path']):
        content = read_coco(ann_file)
        objects = _objects(content)
        for image in content['images']:
            path = osp.join(folder, image['file_name'])
            own = sorted(objects.get(image['id'], []),
                         key=lambda x: -x[0][2] * x[0][3])
            if what == 'images':
                found.append((path, None, own[0][1] if own else None))
                continue
            found += [(path, box, name) for box, name in own
                      if min(box[2:]) >= setup.crop.rules.min_size]
    if not found:
        raise ValueError(
            f'{dataset.ann_file} has no annotated object with both sides of '
            f'at least {setup.crop.rules.min_size} pixels: give --what images')
    if num_classes is not None:
        counts = Counter(name for *_, name in found if name is not None)
        kept = {name for name, _ in counts.most_common(num_classes)} or {None}
        found = [x for x in found if x[2] in kept]
    picked = np.random.permutation(len(found))[:number]
    picked = sorted((found[i] for i in picked), key=lambda x: x[0])
    size = (setup.crop.scene_size if what == 'images' else
            setup.crop.instance_size)
    crops, last = [], None
    for path, box, name in track(picked, desc='reading'):
        if path != last:
            photo, last = _read(path), path
        crops.append(Crop(_cut(photo, box, size, setup.crop), path, name))
    return crops


def _objects(content: dict) -> dict[int, list]:
    """Boxes (x, y, w, h) and category names, by image id; no crowds."""
    names = {x['id']: x['name'] for x in content.get('categories', [])}
    objects: dict[int, list] = {}
    for x in content.get('annotations', []):
        if x.get('bbox') and not x.get('iscrowd'):
            name = names.get(x['category_id'], str(x['category_id']))
            objects.setdefault(x['image_id'], []).append((x['bbox'], name))
    return objects


def _read(path: str) -> np.ndarray:
    try:
        with open(path, 'rb') as file:
            return EncodedImage(file.read()).decode()
    except ValueError as e:
        raise ValueError(f"cannot read the image '{path}' ({e}): repair it, "
                         'or take it out of the json') from None


def _cut(photo: np.ndarray, box: Optional[list], size: int,
         crop: OverlapSceneCrop) -> np.ndarray:
    if box is not None:
        x, y, w, h = box
        photo = photo[max(0, int(y)):int(np.ceil(y + h)),
                      max(0, int(x)):int(np.ceil(x + w))]
    view = mmcv.imresize(photo, (size, size),
                         interpolation=crop.interpolation,
                         backend=crop.backend)
    return np.ascontiguousarray(view[..., ::-1])


def prepare(model: nn.Module, views: list[np.ndarray]) -> torch.Tensor:
    """Views of one size (h, w, 3) uint8, RGB, as the network gets them:
    normalised, (N, 3, h, w), on its device."""
    bgr = np.stack([view[..., ::-1] for view in views]).transpose(0, 3, 1, 2)
    inputs = torch.from_numpy(np.ascontiguousarray(bgr))
    return model.data_preprocessor(dict(inputs=inputs), False)['inputs']


@torch.no_grad()
def embed(model: nn.Module, views: list[np.ndarray],
          branch: str = 'online') -> torch.Tensor:
    """The backbone's pooled features, scaled to length one.

    Args:
        model (nn.Module): In evaluation mode.
        views (list[np.ndarray]): N of one size, (h, w, 3) uint8, RGB.
        branch (str): 'online' or 'target'. Defaults to 'online'.

    Returns:
        Tensor: (N, C), on the CPU.
    """
    backbone = backbone_of(model, branch)
    features = [
        backbone(prepare(model, views[start:start + BATCH]))[-1].mean((2, 3))
        for start in track(range(0, len(views), BATCH), unit='batch',
                           desc='features')
    ]
    return l2_normalize(torch.cat(features)).cpu()


def nearest(features: torch.Tensor, groups: list, query: int,
            k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k most similar others of another group.

    Args:
        features (Tensor): Of length one, (N, C).
        groups (list): The group of each, such as its image.
        query (int): Which of the N.
        k (int): Fewer come back where there are fewer.

    Returns:
        tuple[np.ndarray, np.ndarray]: Indices and cosines, descending.
    """
    cosines = (features @ features[query]).numpy()
    allowed = np.array([group != groups[query] for group in groups])
    order = np.argsort(-np.where(allowed, cosines, -np.inf), kind='stable')
    order = order[:min(k, allowed.sum())]
    return order, cosines[order]


@torch.no_grad()
def transport_of(model: nn.Module, views: list[np.ndarray]) -> Transport:
    """The plan that the instance-instance loss has for an image.

    Args:
        model (nn.Module): UniVIP with ``SinkhornOTLoss``, in evaluation mode.
        views (list[np.ndarray]): [scene_1, scene_2, instance_1, ...,
            instance_K], (h, w, 3) uint8, RGB.

    Raises:
        ValueError: The model has no such loss.
    """
    loss = getattr(model, 'instance_loss', None)
    if not hasattr(loss, 'epsilon'):
        raise ValueError(f'{type(model).__name__} has no instance_loss with '
                         'an epsilon: give a config of UniVIP with '
                         'SinkhornOTLoss')
    scenes, instances = (
        prepare(model, part) for part in (views[:2], views[2:]))

    def online(x):
        projection = model.neck(model.backbone(x))[0]
        return model.head.predictor([projection])[0]

    o, t = online(instances)[None], model.target_net(instances)[0][None]
    f_o = online(scenes).mean(0, keepdim=True)
    f_t = model.target_net(scenes)[0].mean(0, keepdim=True)
    similarity = l2_normalize(o) @ l2_normalize(t).transpose(1, 2)
    supply, demand = marginal(o, f_t)[0], marginal(t, f_o)[0]
    plan = sinkhorn(1 - similarity, supply, demand, loss.epsilon,
                    loss.num_iters, largest_cost=2.0)
    return Transport(*(x[0].cpu().numpy()
                       for x in (similarity, plan, supply, demand)))


def cut_scene(sample: dict, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The first scene of a sample, with its longer side of ``size`` pixels
    and its own ratio, (h, w, 3) uint8, RGB, and the boxes of the instances in
    it, (K, 4) xyxy."""
    x1, y1, x2, y2 = sample['scene_boxes'][0]
    scale = size / max(x2 - x1, y2 - y1)
    width, height = (max(1, round(x * scale)) for x in (x2 - x1, y2 - y1))
    scene = mmcv.imresize(sample['photo'][y1:y2, x1:x2], (width, height),
                          interpolation='bicubic')
    boxes = (sample['instance_boxes'] - [x1, y1, x1, y1]) * scale
    return np.ascontiguousarray(scene[..., ::-1]), boxes


@torch.no_grad()
def similarity_maps(model: nn.Module, scene: np.ndarray,
                    instances: list[np.ndarray],
                    branch: str = 'online') -> np.ndarray:
    """Where in a scene the backbone sees what it sees in each instance.

    Args:
        model (nn.Module): In evaluation mode.
        scene (np.ndarray): (H, W, 3) uint8, RGB.
        instances (list[np.ndarray]): K of one size, likewise.
        branch (str): 'online' or 'target'. Defaults to 'online'.

    Returns:
        np.ndarray: Cosines (K, H, W), see :func:`cosine_map`.
    """
    backbone = backbone_of(model, branch)
    pooled = backbone(prepare(model, instances))[-1].mean((2, 3))
    feature_map = backbone(prepare(model, [scene]))[-1][0]
    maps = cosine_map(feature_map, pooled)
    return upsample(maps, scene.shape[:2]).cpu().numpy()


def cosine_map(feature_map: torch.Tensor,
               features: torch.Tensor) -> torch.Tensor:
    """Cosine of each feature (K, C) with each place of a map (C, h, w),
    (K, h, w)."""
    places = l2_normalize(feature_map.permute(1, 2, 0))
    return torch.einsum('hwc,kc->khw', places, l2_normalize(features))


def upsample(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Maps (K, h, w) at another size (H, W), bilinear."""
    return F.interpolate(
        maps[None], size=tuple(size), mode='bilinear',
        align_corners=False)[0]
