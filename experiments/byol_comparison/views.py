"""Views of all methods, cut out of images that stay in memory."""
import random
from collections.abc import Sequence
from typing import NamedTuple, Optional

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from torch import Tensor

from univip_mm.datasets.transforms import OverlapSceneCrop
from univip_mm.datasets.transforms.box_sampling import Box, sample_crop
from univip_mm.io.pixel_cache import PixelCache
from univip_mm.models import UniVIPDataPreprocessor
from univip_mm.registry import MODELS, TRANSFORMS


class Place(NamedTuple):
    """Place of an image in the memory of the training device."""
    shape: tuple[int, int, int]  # (H, W, 3)
    offset: int  # position of the first value in the pixel cache


@TRANSFORMS.register_module()
class FindImage(BaseTransform):
    """Transform that finds the place of an image in the pixel cache.

    Used instead of ``LoadEncodedImage`` if the images are in the memory of a
    GPU. ``img`` becomes a :class:`Place`.

    Args:
        cache (str): The pixel cache.
    """

    def __init__(self, cache: str) -> None:
        self.cache = PixelCache(cache)

    def transform(self, results: dict) -> dict:
        """Find the image.

        Raises:
            KeyError: The cache does not have the image.
        """
        entry = self.cache.entry(results['img_id'])
        if entry is None:
            raise KeyError(f"'{self.cache.path}' has no image "
                           f"{results['img_id']}: delete it and try again")
        place = Place((entry.height, entry.width, 3), entry.offset)
        results.update(img=place, img_shape=place.shape[:2],
                       ori_shape=place.shape[:2])
        return results


@TRANSFORMS.register_module()
class MethodViews(OverlapSceneCrop):
    """``OverlapSceneCrop`` that cuts the views that a method uses.

    Args:
        scenes (str): 'overlap' for UniVIP's two scenes, or 'independent' for
            two random resized crops, as in BYOL. Defaults to 'overlap'.
        instances (bool): Cut the K instances too. Without them, the scenes
            are still those whose overlap has K proposals. Defaults to True.
        **kwargs: Arguments of ``OverlapSceneCrop``.

    Raises:
        ValueError: An option is out of range.
    """

    def __init__(self, scenes: str = 'overlap', instances: bool = True,
                 **kwargs) -> None:
        super().__init__(**kwargs)
        if scenes not in ('overlap', 'independent'):
            raise ValueError(f"MethodViews: scenes is '{scenes}', but must be "
                             "'overlap' or 'independent'")
        self.scenes = scenes
        self.instances = instances

    def transform(self, results: dict) -> dict:
        """Sample the boxes, then cut the views."""
        if self.scenes == 'overlap':
            return super().transform(results)
        image = results['img']
        rng = random.Random(results['view_seed'])
        height, width = image.shape[:2]
        scenes = [sample_crop(rng, width, height, self.crop_ratio_range,
                              self.aspect_ratio_range) for _ in range(2)]
        results.update(img=self._crop_views(image, scenes, []),
                       scene_boxes=np.array(scenes), num_proposed=0)
        return results

    def _crop_views(self, image, scenes: Sequence[Box],
                    instances: Sequence[Box]) -> list:
        instances = instances if self.instances else []
        if not isinstance(image, Place):
            return super()._crop_views(image, scenes, instances)
        sizes = [self.scene_size] * 2 + [self.instance_size] * len(instances)
        height, width, channels = image.shape
        layout = [image.offset, width * channels, channels, 1]
        return [torch.tensor([[*layout, *box]
                              for box in (*scenes, *instances)]),
                torch.tensor(sizes)]


@MODELS.register_module()
class ResidentPreprocessor(UniVIPDataPreprocessor):
    """Preprocessor that has all images in the memory of its device.

    Args:
        cache (str): The pixel cache.
        **kwargs: Arguments of ``UniVIPDataPreprocessor``.
    """

    def __init__(self, cache: str, **kwargs) -> None:
        super().__init__(**kwargs)
        self.cache = cache
        self._pixels: Optional[Tensor] = None

    def forward(self, data: dict, training: bool = False) -> dict:
        """Cut and augment the views of a batch of :class:`MethodViews`.

        ``inputs`` has the places and boxes of the views, (B, V, 8) int64, as
        in :func:`univip_mm.models.view_cutter.cut_views`, and their sides,
        (B, V).
        """
        if self._pixels is None:
            self._pixels = torch.from_numpy(
                np.fromfile(self.cache, np.uint8)).to(self.mean.device)
        table, sizes = data['inputs']
        inputs = dict(pixels=self._pixels, table=table,
                      sizes=sizes[0].tolist())
        return super().forward(dict(data, inputs=inputs), training)
