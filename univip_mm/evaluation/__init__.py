"""Classifiers and metrics for frozen features."""
from .knn import knn_predict, knn_scores
from .linear import linear_scores
from .multi_label_probe import MultiLabelProbe

__all__ = ['MultiLabelProbe', 'knn_predict', 'knn_scores', 'linear_scores']
