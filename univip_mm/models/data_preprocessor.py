"""Photometric augmentation and normalization on the training device."""
from collections.abc import Sequence
from itertools import groupby
from typing import Optional

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.model import ImgDataPreprocessor
from torch import Tensor

from ..registry import MODELS
from . import photometric
from .augment_params import (
    NUM_UNIFORMS,
    Augmentation,
    sample_from_seeds,
    sample_params,
)
from .jpeg_decoder import JpegDecoder
from .pixel_params import (
    PixelParams,
    compute_pixel_params,
    concatenate,
    count_hue_shifts,
    find_steps,
    upload,
)
from .view_cutter import cut_batch

# Values that the CPU augments at once: float32, 0.5 MB, to stay in its cache.
_CPU_CHUNK_VALUES = 2**17


@MODELS.register_module()
class UniVIPDataPreprocessor(ImgDataPreprocessor):
    """Photometric augmentation and normalization of the collated views.

    In training, the input is the list [scene_1, scene_2, instance_1, ...,
    instance_K] of uint8 batches (B, 3, H, W), K >= 0. Each image of each view
    gets its own augmentation (:class:`Augmentation`) on the training device.
    Normalization follows, without a clamp. Outside of training, the views are
    only normalized.

    The augmentation of an image is a function of the ``view_seed`` of its
    data sample, as its crops are, and so of (seed, epoch, image). Images
    without ``view_seed`` use a random generator.

    Args:
        mean (Sequence[float]): Mean of R, G, B in [0, 255]. Defaults to
            ImageNet's.
        std (Sequence[float]): Standard deviation of R, G, B. Defaults to
            ImageNet's.
        to_rgb (bool): Convert the input from BGR, the order of the host's
            ``LoadImageFromFile``. Defaults to True.
        scene1 (dict, optional): Options of :class:`Augmentation` for the
            first scene.
        scene2 (dict, optional): Options for the second scene. Defaults to
            BYOL's second view: ``blur_prob=0.1, solarize_prob=0.2``.
        instances (dict, optional): Options for the instances. Defaults to
            those of the first scene.
        instance_views (int): Augmented views of each instance. With 1, both
            branches get the same pixels. With 2, the output is [scene_1,
            scene_2, K instances for the online branch, K instances for the
            target branch]. Defaults to 1.
        seed (int, optional): Seed of the generator for images without
            ``view_seed``, different on each rank. Defaults to the Runner's.
        channels_last (bool): Return the views in PyTorch's ``channels_last``
            layout, which speeds up half-precision convolutions on GPUs. The
            values are the same. Defaults to False.
        non_blocking (bool): Copy to the device asynchronously. Defaults to
            True.

    Raises:
        ValueError: An augmentation has an unknown option, or a value is out
            of range.
    """

    def __init__(self, mean: Sequence[float] = (123.675, 116.28, 103.53),
                 std: Sequence[float] = (58.395, 57.12, 57.375),
                 to_rgb: bool = True, scene1: Optional[dict] = None,
                 scene2: Optional[dict] = None,
                 instances: Optional[dict] = None, instance_views: int = 1,
                 seed: Optional[int] = None, channels_last: bool = False,
                 non_blocking: bool = True) -> None:
        super().__init__(
            mean=mean, std=std, bgr_to_rgb=to_rgb, non_blocking=non_blocking)
        self.scene1 = _build_augmentation('scene1', scene1)
        self.scene2 = _build_augmentation('scene2', {
            'blur_prob': 0.1, 'solarize_prob': 0.2, **(scene2 or {})})
        self.instances = (
            self.scene1 if instances is None else
            _build_augmentation('instances', instances))
        if instance_views not in (1, 2):
            raise ValueError('data_preprocessor.instance_views is '
                             f'{instance_views!r}: set 1 or 2')
        self.instance_views = instance_views
        self.seed = seed
        self.memory_format = (
            torch.channels_last if channels_last else torch.contiguous_format)
        # From pixels in [0, 1] to normalized pixels.
        self.register_buffer('_scale', 255 / self.std, persistent=False)
        self.register_buffer('_shift', -self.mean / self.std, persistent=False)
        self._generator: Optional[torch.Generator] = None
        self.jpeg_decoder = JpegDecoder()

    def forward(self, data: dict, training: bool = False) -> dict:
        """Normalize a collated batch, and augment it in training.

        Args:
            data (dict): ``inputs``, a list of uint8 batches (B, 3, H, W),
                one such batch, or images and boxes to cut the views out of,
                from :func:`~univip_mm.datasets.collate_views`; and
                ``data_samples``.
            training (bool): Augment the views. Defaults to False.

        Returns:
            dict: ``inputs`` of the same form in float32, and
            ``data_samples``.
        """
        if isinstance(data['inputs'], dict) and 'files' in data['inputs']:
            paths = [x.get('img_path') for x in data.get('data_samples') or ()]
            data = dict(data, inputs=self.jpeg_decoder.add_images(
                data['inputs'], self.mean.device,
                paths if all(paths) else None))
        data = self.cast_data(data)
        inputs = data['inputs']
        if isinstance(inputs, dict):
            inputs = cut_batch(**inputs)
        samples = data.get('data_samples')
        # Pixels stay in float32, also in mixed precision.
        with torch.autocast(self.mean.device.type, enabled=False):
            if isinstance(inputs, Tensor):
                inputs = self._normalize(self._to_rgb(inputs))
            elif training:
                inputs = self._augment_views(inputs, samples)
            else:
                inputs = [self._normalize(self._to_rgb(x)) for x in inputs]
        return dict(inputs=inputs, data_samples=samples)

    def _augment_views(self, views: list[Tensor],
                       samples: Optional[list]) -> list[Tensor]:
        scene1, scene2, *instances = views
        instances = instances * self.instance_views
        uniforms = self._sample_uniform(
            len(scene1), 2 + len(instances), samples)
        # One entry per kind of view: batches, uniform numbers, options.
        kinds = [([scene1], uniforms[:, :1], self.scene1),
                 ([scene2], uniforms[:, 1:2], self.scene2)]
        if instances:
            kinds.append((instances, uniforms[:, 2:], self.instances))
        # Views of equal size are augmented as one batch, faster on a GPU.
        groups = [list(group) for _, group in groupby(
            kinds, lambda kind: kind[0][0].shape)]
        hue_shifts = count_hue_shifts(option for _, _, option in kinds)
        arrays = [_pixel_params(group, hue_shifts) for group in groups]
        augmented: list[Tensor] = []
        for group, on_host, on_device in zip(
                groups, arrays, upload(arrays, scene1.device)):
            images = torch.cat([x for batches, _, _ in group for x in batches])
            augmented += self._augment_batch(
                images, on_host, on_device, hue_shifts).split(len(scene1))
        return augmented

    def _augment_batch(self, images: Tensor, on_host: PixelParams,
                       on_device: PixelParams, hue_shifts: int) -> Tensor:
        chunk = len(images)
        if images.device.type == 'cpu':
            chunk = max(1, _CPU_CHUNK_VALUES // images[0].numel())
        parts = []
        for start in range(0, len(images), chunk):
            part = slice(start, start + chunk)
            steps = find_steps(on_host.select(part), hue_shifts)
            pixels = photometric.augment(
                self._to_rgb(images[part]), on_device.select(part), steps)
            parts.append(torch.addcmul(self._shift, pixels, self._scale))
        whole = parts[0] if len(parts) == 1 else torch.cat(parts)
        return whole.contiguous(memory_format=self.memory_format)

    def _sample_uniform(self, batch_size: int, num_views: int,
                        samples: Optional[list]) -> np.ndarray:
        """Sample uniform numbers (B, num_views, NUM_UNIFORMS) on the CPU."""
        if samples and all('view_seed' in sample for sample in samples):
            return sample_from_seeds(
                [sample.view_seed for sample in samples], num_views)
        if self._generator is None:
            seed = torch.initial_seed() if self.seed is None else self.seed
            # The Runner may seed all ranks equally, but ranks have different
            # images and need different augmentations.
            self._generator = torch.Generator().manual_seed(
                (seed + 1_000_003 * get_rank()) % 2**63)
        return torch.rand(batch_size, num_views, NUM_UNIFORMS,
                          generator=self._generator).numpy()

    def _to_rgb(self, images: Tensor) -> Tensor:
        return images.flip(1) if self._channel_conversion else images

    def _normalize(self, images: Tensor) -> Tensor:
        return (images.float() - self.mean) / self.std


def _pixel_params(group: list[tuple], hue_shifts: int) -> PixelParams:
    """Compute the parameters of the kinds of view that form one batch."""
    (first, *_), _, _ = group[0]
    radius = min(max(option.blur_kernel for _, _, option in group) // 2,
                 min(first.shape[2:]) - 1)
    return concatenate(
        compute_pixel_params(
            sample_params(
                uniforms.swapaxes(0, 1).reshape(-1, NUM_UNIFORMS), option),
            option, hue_shifts, radius) for _, uniforms, option in group)


def _build_augmentation(name: str, options: Optional[dict]) -> Augmentation:
    options = options or {}
    known = list(Augmentation.__dataclass_fields__)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f'data_preprocessor.{name} has unknown options '
                         f'{unknown}: use {known}')
    try:
        return Augmentation(**options)
    except ValueError as e:
        raise ValueError(f'data_preprocessor.{name}.{e}') from None
