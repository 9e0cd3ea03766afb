from .knn import knn_scores
from .linear import linear_scores
from .multi_label_probe import MultiLabelProbe

__all__ = ['MultiLabelProbe', 'knn_scores', 'linear_scores']
