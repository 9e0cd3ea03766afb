from collections.abc import Sequence
from typing import Optional

import torch
from mmengine.dist import get_rank

from ..registry import MODELS
from . import photometric
from .photometric import Augmentation

SelfSupDataPreprocessor = MODELS.get('SelfSupDataPreprocessor')


@MODELS.register_module()
class UniVIPDataPreprocessor(SelfSupDataPreprocessor):
    """Photometric augmentation and normalisation of the collated views.

    In training, the input is the list [scene_1, scene_2, instance_1, ...,
    instance_K] of uint8 batches (B, 3, H, W). Each image of each view is
    augmented on its own (:class:`photometric.Augmentation`), on the training
    device, then normalised, with no clamp after that. Otherwise the input is
    one batch, which is only normalised.

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
        seed (int, optional): Seed of the drawn values. Defaults to None, the
            Runner's seed. Each rank draws its own.
        non_blocking (bool): Whether to copy to the device without waiting.
            Defaults to True.

    Raises:
        ValueError: An augmentation has an unknown key or a value out of its
            range.
    """

    def __init__(self,
                 mean: Sequence[float] = (123.675, 116.28, 103.53),
                 std: Sequence[float] = (58.395, 57.12, 57.375),
                 to_rgb: bool = True,
                 scene1: Optional[dict] = None,
                 scene2: Optional[dict] = None,
                 instances: Optional[dict] = None,
                 seed: Optional[int] = None,
                 non_blocking: bool = True) -> None:
        super().__init__(
            mean=mean, std=std, to_rgb=to_rgb, non_blocking=non_blocking)
        self.scene1 = _augmentation('scene1', scene1)
        self.scene2 = _augmentation('scene2', {
            'blur_prob': 0.1,
            'solarize_prob': 0.2,
            **(scene2 or {})
        })
        self.instances = (
            self.scene1 if instances is None else _augmentation(
                'instances', instances))
        self.seed = seed
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
        # The pixels are prepared in float32 whatever the model's precision.
        with torch.autocast(self.mean.device.type, enabled=False):
            if isinstance(inputs, torch.Tensor):
                inputs = self._normalise(self._to_rgb(inputs))
            elif training:
                inputs = self._augment(inputs)
            else:
                inputs = [self._normalise(self._to_rgb(x)) for x in inputs]
        return dict(inputs=inputs, data_samples=data.get('data_samples'))

    def _augment(self, views: list[torch.Tensor]) -> list[torch.Tensor]:
        augmentations = [self.scene1, self.scene2
                         ] + [self.instances] * (len(views) - 2)
        return [
            self._normalise(255 * photometric.apply(
                self._to_rgb(view) / 255,
                photometric.draw(len(view), augmentation, self._draw_from()),
                augmentation))
            for view, augmentation in zip(views, augmentations)
        ]

    def _draw_from(self) -> torch.Generator:
        if self._generator is None:
            seed = torch.initial_seed() if self.seed is None else self.seed
            # The Runner seeds all ranks alike; their images differ, and so
            # should what is drawn for them.
            self._generator = torch.Generator().manual_seed(
                (seed + 1_000_003 * get_rank()) % 2**63)
        return self._generator

    def _to_rgb(self, images: torch.Tensor) -> torch.Tensor:
        if self._channel_conversion:
            images = images[:, [2, 1, 0]]
        return images.float()

    def _normalise(self, images: torch.Tensor) -> torch.Tensor:
        return (images - self.mean) / self.std


def _augmentation(name: str, options: Optional[dict]) -> Augmentation:
    try:
        augmentation = Augmentation(**(options or {}))
    except TypeError:
        known = list(Augmentation.__dataclass_fields__)
        unknown = sorted(set(options) - set(known))
        raise ValueError(f'data_preprocessor.{name} has no option {unknown}; '
                         f'its options are {known}') from None
    for problem in photometric.check(augmentation):
        raise ValueError(f'data_preprocessor.{name}.{problem}')
    return augmentation
