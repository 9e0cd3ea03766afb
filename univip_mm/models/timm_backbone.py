"""Backbones of timm."""
from typing import Any, Optional

from mmengine.dist import is_distributed
from mmengine.model import BaseModule
from torch import Tensor

from ..registry import MODELS
from ..utils.text import printable


@MODELS.register_module()
class PooledTIMMBackbone(BaseModule):
    """Network of timm without its classifier, with timm's own pooling.

    The host's ``TIMMBackbone`` returns what comes before the pooling: a
    feature map, tokens (B, N, C) of a ViT, or (B, H, W, C) of a Swin, which a
    projector cannot tell apart. This class returns the vectors that timm
    gives to its classifier. The names of the weights are those of
    ``TIMMBackbone``, so each class loads the files of the other.

    Args:
        model_name (str): Name in ``timm.list_models()``. Nothing is
            downloaded.
        norm_cfg (dict): ``dict(type='SyncBN')`` shares the statistics of
            batch norm between the GPUs of a distributed training, with
            timm's conversion: PyTorch's own (``sync_bn`` of the config) drops
            the activations in timm's layers. Defaults to ``dict(type='BN')``.
        init_cfg (dict, optional): Initialization config.
        **kwargs: Arguments of the network, for example
            ``dynamic_img_size=True`` for a ViT and views of two sizes.

    Raises:
        ValueError: timm is missing, or has no such network.
    """

    def __init__(self, model_name: str, norm_cfg: Optional[dict] = None,
                 init_cfg: Optional[dict] = None, **kwargs: Any) -> None:
        super().__init__(init_cfg)
        timm = import_timm()
        # Also refuses 'hf-hub:...', which timm would download.
        if not timm.is_model(model_name):
            raise ValueError(f"timm has no network '{printable(model_name)}': "
                             'choose one of timm.list_models()')
        self.timm_model = timm.create_model(
            model_name, pretrained=False, num_classes=0, **kwargs)
        if (norm_cfg or {}).get('type') == 'SyncBN' and is_distributed():
            self.timm_model = timm.layers.convert_sync_batchnorm(
                self.timm_model)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Return the pooled features (B, C) of images (B, 3, H, W)."""
        return (self.timm_model(x), )


def import_timm() -> Any:
    """Return the package timm, which is not a dependency.

    Raises:
        ValueError: It is not installed.
    """
    try:
        import timm
        import timm.layers
    except ImportError as e:
        raise ValueError(f'a network of timm needs the package timm ({e}): '
                         "'pip install timm'") from None
    return timm
