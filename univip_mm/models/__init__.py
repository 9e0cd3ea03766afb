"""The model, its losses, and its data preprocessor."""
from .data_preprocessor import UniVIPDataPreprocessor
from .sinkhorn_ot_loss import SinkhornOTLoss
from .sinkhorn_solver import sinkhorn
from .timm_backbone import PooledTIMMBackbone
from .univip import UniVIP
from .univip_neck import UniVIPNeck
from .zero_sum_init import ZeroSumInit

__all__ = [
    'PooledTIMMBackbone', 'SinkhornOTLoss', 'UniVIP', 'UniVIPDataPreprocessor',
    'UniVIPNeck', 'ZeroSumInit', 'sinkhorn'
]
