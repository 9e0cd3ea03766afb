"""Features of images from the backbone of a checkpoint."""
import json
import os
import os.path as osp
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Optional, Union

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision import transforms

from ..io.atomic import PathLike, atomic_write
from ..io.coco_json import digest_of, image_path
from ..io.data_sources import Source, read_sources
from ..io.encoded_image import EncodedImage
from ..io.images import read_bytes, reason_of
from ..io.outputs import check_output_file
from ..utils.errors import warn
from ..utils.parallel import number_of_workers
from ..utils.progress import track
from ..utils.text import excerpt, printable
from .embed_parts import Parts
from .feature_file import check_format, write_features
from .network import FeatureNetwork, build_network
from .source import BackboneSource, Normalization, read_source

# The shorter side has 256 pixels for a crop of 224, as usual for ImageNet.
_RESIZE = 256 / 224
_MAX_RATIO = 8  # of the sides of an image that is resized


class Embedded(NamedTuple):
    """File with the features of images.

    Attributes:
        path (str): The file.
        images (int): Number of images with features.
        channels (int): Length of a feature.
        unreadable (int): Number of images without features.
    """
    path: str
    images: int
    channels: int
    unreadable: int


def embed(source: PathLike, data: Union[Source, Sequence[Source]],
          out: PathLike, *, branch: str = 'online', batch_size: int = 64,
          size: int = 224, device: str = 'auto',
          workers: Optional[int] = None,
          config: Optional[PathLike] = None) -> Embedded:
    """Write the features of images, one vector per image, in float32.

    The whole image is used: its shorter side is resized to ``size`` * 256 /
    224, the center is cropped to ``size``, and the pixels are normalized as in
    the training. The features are pooled as in
    :class:`~univip_mm.downstream.network.FeatureNetwork`.

    Finished parts are kept in ``OUT.parts``, so that a call that was stopped
    can be repeated and resumes. Unreadable images have no features; they are
    counted in a warning and listed in ``OUT.unreadable.txt``.

    Args:
        source (str or PathLike): OUT of ``univip pretrain``, a work dir, a
            checkpoint, or a backbone file of format 'mm'.
        data: One or several sources of images, as in
            :func:`~univip_mm.io.data_sources.read_sources`.
        out (str or PathLike): File that ends in .npz, .csv or .parquet.
        branch (str): 'online' or 'target'. Defaults to 'online'.
        batch_size (int): Images per step. Defaults to 64.
        size (int): Side of the crop in pixels. Defaults to 224.
        device (str): 'cpu', 'cuda', 'cuda:1', ..., or 'auto', a GPU if there
            is one. Defaults to 'auto'.
        workers (int, optional): Processes that decode images. Defaults to one
            per usable core, at most 8.
        config (str or PathLike, optional): As in
            :func:`~univip_mm.downstream.source.read_source`.

    Raises:
        FileNotFoundError: There is no such checkpoint, or no image.
        ValueError: An argument is wrong, the network is unknown, no image is
            readable, or a feature is not finite.
    """
    out = os.fspath(out)
    check_format(out)
    for name, value in dict(batch_size=batch_size, size=size).items():
        if value < 1:
            raise ValueError(f'{name} is {value}, but must be at least 1')
    if workers is None:
        workers = min(8, number_of_workers())
    number_of_workers(workers)
    target = find_device(device)
    check_output_file(out, 'the features')
    found = read_source(source, branch, config)
    network = build_network(found).to(target)
    _check_size(network, size, target)
    images = read_sources(data)
    names = [image['file_name'] for image in images.images]
    paths = [image_path(images.folder, name) for name in names]
    parts = Parts(f'{out}.parts', _settings(found, size, images), len(names))
    loader = _loader(paths, parts.missing_batches(batch_size), size, workers)
    with track((), total=len(names), initial=parts.done) as bar:
        for batch, features, reasons in _run(
                network, loader, found.normalization, target):
            parts.add(batch, features, reasons)
            bar.update(len(batch))
    return _finish(out, names, parts)


def find_device(name: str) -> torch.device:
    """Return the device of a name; 'auto' is a GPU if there is one.

    Raises:
        ValueError: This machine has no such device.
    """
    if name == 'auto':
        name = 'cuda' if torch.cuda.is_available() else 'cpu'
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as e:
        raise ValueError(f"device '{printable(name)}' cannot be used "
                         f'({excerpt(str(e))}): use auto or cpu') from None
    return device


def _settings(source: BackboneSource, size: int, images: tuple) -> dict:
    """Return all that the features depend on, as JSON can hold it."""
    settings = dict(
        origin=source.origin, backbone=source.backbone, size=size,
        normalization=source.normalization, folder=images.folder,
        images=digest_of(images.images))
    return json.loads(json.dumps(settings, default=str))


@torch.no_grad()
def _check_size(network: FeatureNetwork, size: int,
                device: torch.device) -> None:
    """Raise ValueError if the network cannot run on images of this size."""
    try:
        network(torch.zeros(1, 3, size, size, device=device))
    except Exception as e:  # the network may raise any type
        raise ValueError(
            f'the network cannot run on images of {size} x {size} pixels '
            f'({excerpt(str(e))}): choose another size') from None


class _Images(Dataset):
    """Crops (3, size, size) uint8 RGB, or the reasons why there is none."""

    def __init__(self, paths: Sequence[str], size: int) -> None:
        self.paths = paths
        self.transform = transforms.Compose([
            transforms.Resize(round(size * _RESIZE)),
            transforms.CenterCrop(size), transforms.PILToTensor()])

    def __getitem__(self, index: int) -> tuple[int, Union[Tensor, str]]:
        try:
            pixels = EncodedImage(read_bytes(self.paths[index])).decode()
        except (OSError, ValueError) as e:
            return index, reason_of(e)
        image = Image.fromarray(np.ascontiguousarray(pixels[..., ::-1]))
        return index, self.transform(_limit_ratio(image))


def _limit_ratio(image: Image.Image) -> Image.Image:
    """Cut the ends off an image of 1 x 10,000, whose resize would be huge."""
    limit = _MAX_RATIO * min(image.size)
    if max(image.size) <= limit:
        return image
    width, height = (min(side, limit) for side in image.size)
    return transforms.functional.center_crop(image, [height, width])


def _loader(paths: Sequence[str], batches: Sequence[Sequence[int]],
            size: int, workers: int) -> DataLoader:
    workers = 0 if workers == 1 else min(workers, len(batches))
    return DataLoader(
        _Images(paths, size), batch_sampler=batches, num_workers=workers,
        collate_fn=_collate, worker_init_fn=_start_worker)


def _collate(items: list[tuple[int, Union[Tensor, str]]]
             ) -> tuple[list[int], Optional[Tensor], list[str]]:
    """Return indices, the crops (n, 3, size, size) if any, and reasons."""
    pixels = [x for _, x in items if not isinstance(x, str)]
    # Stacked here, because a tensor of a worker needs a file descriptor.
    return ([index for index, _ in items],
            default_collate(pixels) if pixels else None,
            [x if isinstance(x, str) else '' for _, x in items])


def _start_worker(_: int) -> None:
    cv2.setNumThreads(1)


@torch.no_grad()
def _run(network: FeatureNetwork, loader: DataLoader,
         normalization: Normalization, device: torch.device
         ) -> Iterator[tuple[list[int], np.ndarray, list[str]]]:
    """Yield indices, features (n, C) of the readable ones, and reasons."""
    mean, std = (torch.tensor(x, device=device).view(3, 1, 1)
                 for x in normalization[:2])
    for indices, pixels, reasons in loader:
        features = torch.zeros(0, 0)
        if pixels is not None:
            images = pixels.to(device)
            if normalization.order == 'BGR':
                images = images.flip(1)
            features = network((images.float() - mean) / std)[0].float().cpu()
            if not features.isfinite().all():
                raise ValueError('a feature is not finite: the weights are '
                                 'broken, so use an earlier checkpoint')
        yield indices, features.numpy(), reasons


def _finish(out: str, names: Sequence[str], parts: Parts) -> Embedded:
    """Write the file of all features, and remove the parts."""
    reasons = parts.reasons()
    bad = [(name, reason) for name, reason in zip(names, reasons) if reason]
    readable = [name for name, reason in zip(names, reasons) if not reason]
    if not readable:
        raise ValueError(
            f'none of the {len(names)} images is readable, for example '
            f"'{printable(bad[0][0])}': {bad[0][1]}")
    channels = parts.channels()
    write_features(out, readable, channels, parts.features())
    listing = f'{out}.unreadable.txt'
    if bad:
        with atomic_write(listing, 'w') as file:
            file.writelines(f'{printable(name)}\t{reason}\n'
                            for name, reason in bad)
        warn(f'{len(bad)} of {len(names)} images are unreadable and have no '
             f"features, for example '{bad[0][0]}' ({bad[0][1]}): all are in "
             f"'{listing}'")
    elif osp.isfile(listing):  # of an earlier call
        os.remove(listing)
    parts.remove()
    return Embedded(out, len(readable), channels, len(bad))
