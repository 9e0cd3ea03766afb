from collections.abc import Sequence
from itertools import groupby
from typing import Optional

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.model import ImgDataPreprocessor

from ..registry import MODELS
from . import photometric
from .photometric import Augmentation

_CACHED_VALUES = 2**20  # float32, 4 MB


@MODELS.register_module()
class UniVIPDataPreprocessor(ImgDataPreprocessor):
    """Photometric augmentation and normalisation of the collated views.

    In training, the input is the list [scene_1, scene_2, instance_1, ...,
    instance_K] of uint8 batches (B, 3, H, W), K >= 0. Each image of each view
    is augmented on its own (:class:`photometric.Augmentation`), on the
    training device, then normalised, with no clamp after that. Otherwise the
    input is one batch, which is only normalised.

    What is drawn for an image is a function of the ``view_seed`` of its data
    sample, as its crops are, and so of (seed, epoch, image). Without one it
    is drawn from a generator.

    Args:
        mean (Sequence[float]): Of R, G, B in [0, 255]. Defaults to
            ImageNet's.
        std (Sequence[float]): Likewise.
        to_rgb (bool): Whether the input is BGR, as the host's
            ``LoadImageFromFile`` gives it. Defaults to True.
        scene1 (dict, optional): What differs from :class:`Augmentation`'s
            defaults for the first scene. Defaults to None.
        scene2 (dict, optional): For the second scene. Defaults to None,
            BYOL's second view: blur 0.1, solarise 0.2.
        instances (dict, optional): For the instances. Defaults to None, that
            of the first scene.
        instance_views (int): 1, and both branches see the same pixels of an
            instance, or 2: each instance is augmented once for the online
            branch and once for the target's, and the views are [scene_1,
            scene_2, the K of the online branch, the K of the target's].
            Defaults to 1.
        seed (int, optional): Seed of the generator that images without a
            ``view_seed`` draw from. Defaults to None, the Runner's seed. Each
            rank draws its own.
        channels_last (bool): Whether to give the views in PyTorch's
            ``channels_last`` layout, for which GPUs have the faster half
            precision convolutions. The values are the same. Defaults to
            False.
        non_blocking (bool): Whether to copy to the device without waiting.
            Defaults to True.

    Raises:
        ValueError: An augmentation has an unknown key, or a value is out of
            its range.
    """

    def __init__(self,
                 mean: Sequence[float] = (123.675, 116.28, 103.53),
                 std: Sequence[float] = (58.395, 57.12, 57.375),
                 to_rgb: bool = True,
                 scene1: Optional[dict] = None,
                 scene2: Optional[dict] = None,
                 instances: Optional[dict] = None,
                 instance_views: int = 1,
                 seed: Optional[int] = None,
                 channels_last: bool = False,
                 non_blocking: bool = True) -> None:
        super().__init__(
            mean=mean, std=std, bgr_to_rgb=to_rgb, non_blocking=non_blocking)
        self.scene1 = _augmentation('scene1', scene1)
        self.scene2 = _augmentation('scene2', {
            'blur_prob': 0.1,
            'solarize_prob': 0.2,
            **(scene2 or {})
        })
        self.instances = (
            self.scene1 if instances is None else _augmentation(
                'instances', instances))
        if instance_views not in (1, 2):
            raise ValueError('data_preprocessor.instance_views is '
                             f'{instance_views!r}: it must be 1 or 2')
        self.instance_views = instance_views
        self.seed = seed
        self.memory_format = (
            torch.channels_last if channels_last else torch.contiguous_format)
        self._generator: Optional[torch.Generator] = None

    def forward(self, data: dict, training: bool = False) -> dict:
        """Augment and normalise a collated batch.

        Args:
            data (dict): ``inputs``, a list of uint8 batches (B, 3, H, W) or
                one such batch, and ``data_samples``.
            training (bool): Whether to augment. Defaults to False.

        Returns:
            dict: ``inputs``, float32 in the form they came in, and
            ``data_samples``.
        """
        data = self.cast_data(data)
        inputs = data['inputs']
        samples = data.get('data_samples')
        # The pixels are prepared in float32 whatever the model's precision.
        with torch.autocast(self.mean.device.type, enabled=False):
            if isinstance(inputs, torch.Tensor):
                inputs = self._normalise(self._to_rgb(inputs))
            elif training:
                inputs = self._augment(inputs, samples)
            else:
                inputs = [self._normalise(self._to_rgb(x)) for x in inputs]
        return dict(inputs=inputs, data_samples=samples)

    def _augment(self, views: list[torch.Tensor],
                 samples: Optional[list]) -> list[torch.Tensor]:
        scene1, scene2, *instances = views
        instances = instances * self.instance_views
        numbers = self._draw_numbers(
            len(scene1), 2 + len(instances), samples)
        kinds = [([scene1], numbers[:, :1], self.scene1),
                 ([scene2], numbers[:, 1:2], self.scene2)]
        if instances:
            kinds.append((instances, numbers[:, 2:], self.instances))
        augmented: list[torch.Tensor] = []
        # Views of one size go as one batch, which a GPU does faster.
        for _, alike in groupby(kinds, lambda kind: (
                kind[0][0].shape, kind[2].blur_kernel,
                kind[2].solarize_threshold)):
            group = list(alike)
            images = torch.cat([x for views, _, _ in group for x in views])
            drawn = photometric.Drawn.join([
                photometric.draw(some.transpose(0, 1).flatten(0, 1), kind)
                for _, some, kind in group])
            batch = self._augment_batch(images, drawn, group[0][2])
            augmented += batch.split(len(scene1))
        return augmented

    def _augment_batch(self, images: torch.Tensor, drawn: photometric.Drawn,
                       augmentation: Augmentation) -> torch.Tensor:
        number = len(images)
        if images.device.type == 'cpu':  # as many as its cache holds
            number = max(1, _CACHED_VALUES // images[0].numel())
        return torch.cat([
            self._normalise(255 * photometric.apply(
                self._to_rgb(some) / 255, values, augmentation))
            for some, values in zip(
                images.split(number), drawn.split(number))
        ]).contiguous(memory_format=self.memory_format)

    def _draw_numbers(self, batch_size: int, num_views: int,
                      samples: Optional[list]) -> torch.Tensor:
        """Uniform numbers, (B, V, photometric.NUMBERS), on the CPU."""
        shape = (num_views, photometric.NUMBERS)
        if samples and all('view_seed' in sample for sample in samples):
            return torch.from_numpy(np.stack([
                np.random.Generator(np.random.Philox(key=sample.view_seed))
                .random(shape, np.float32) for sample in samples
            ]))
        if self._generator is None:
            seed = torch.initial_seed() if self.seed is None else self.seed
            # The Runner seeds all ranks alike; their images differ, and so
            # should what is drawn for them.
            self._generator = torch.Generator().manual_seed(
                (seed + 1_000_003 * get_rank()) % 2**63)
        return torch.rand(batch_size, *shape, generator=self._generator)

    def _to_rgb(self, images: torch.Tensor) -> torch.Tensor:
        if self._channel_conversion:
            images = images[:, [2, 1, 0]]
        return images.float()

    def _normalise(self, images: torch.Tensor) -> torch.Tensor:
        return (images - self.mean) / self.std


def _augmentation(name: str, options: Optional[dict]) -> Augmentation:
    options = options or {}
    try:
        augmentation = Augmentation(**options)
    except TypeError:
        known = list(Augmentation.__dataclass_fields__)
        unknown = sorted(set(options) - set(known))
        raise ValueError(f'data_preprocessor.{name} has no option {unknown}; '
                         f'its options are {known}') from None
    for problem in photometric.check(augmentation):
        raise ValueError(f'data_preprocessor.{name}.{problem}')
    return augmentation
