"""MMPretrain's components for MMSelfSup 1.0, so that one config fits both.

They are registered in scope ``univip_mm`` only. The registries of MMSelfSup
stay unchanged.
"""
from typing import Union

import mmcls.models
import numpy as np
import torch
from mmcls.registry import MODELS as MMCLS_MODELS
from mmcv.transforms import BaseTransform
from mmengine.registry import Registry
from mmengine.structures import BaseDataElement
from mmselfsup.models.heads import LatentPredictHead as MMSelfSupHead
from mmselfsup.visualization import SelfSupVisualizer


class LatentPredictHead(MMSelfSupHead):
    """MMSelfSup's head with MMPretrain's attribute ``loss_module``."""

    @property
    def loss_module(self) -> torch.nn.Module:
        """The loss, which MMSelfSup names ``loss``."""
        return self.loss


class PackInputs(BaseTransform):
    """MMPretrain's ``PackInputs`` for arrays.

    Args:
        input_key (str): Key of the image (H, W, 3) or list of images.
            Tensors stay as they are. Defaults to 'img'.
        algorithm_keys (Sequence[str]): Keys to store as fields of the data
            sample. Missing keys are skipped. Defaults to ().
        meta_keys (Sequence[str]): Keys to store as meta information of the
            data sample. Missing keys are skipped. Defaults to ().
    """

    def __init__(self, input_key='img', algorithm_keys=(), meta_keys=()):
        self.input_key = input_key
        self.algorithm_keys = algorithm_keys
        self.meta_keys = meta_keys

    def transform(self, results: dict) -> dict:
        """Pack images to (3, H, W) tensors, and the rest to a data sample."""
        sample = BaseDataElement()
        if 'gt_label' in results:
            sample.set_field(
                torch.as_tensor(results['gt_label']).reshape(-1), 'gt_label')
        for key in self.algorithm_keys:
            if key in results:
                sample.set_field(results[key], key)
        sample.set_metainfo(
            {key: results[key] for key in self.meta_keys if key in results})
        images = results[self.input_key]
        packed = ([_to_tensor(image) for image in images]
                  if isinstance(images, list) else _to_tensor(images))
        return dict(inputs=packed, data_samples=sample)


def _to_tensor(image: Union[np.ndarray, torch.Tensor]) -> torch.Tensor:
    if isinstance(image, torch.Tensor):
        return image
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def register(models: Registry, transforms: Registry,
             visualizers: Registry) -> None:
    """Register the components that MMSelfSup lacks in our registries.

    Besides the classes of this module, these are MMSelfSup's visualizer under
    MMPretrain's name, and the backbones of MMClassification, which MMSelfSup
    knows only as ``mmcls.NAME``.
    """
    models.register_module(module=LatentPredictHead)
    transforms.register_module(module=PackInputs)
    visualizers.register_module(
        name='UniversalVisualizer', module=SelfSupVisualizer)
    for name in mmcls.models.backbones.__all__:
        if models.get(name) is None:
            models.register_module(name=name, module=MMCLS_MODELS.get(name))
