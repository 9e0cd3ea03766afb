import torch
import torch.nn.functional as F

from univip_mm.evaluation import knn as module
from univip_mm.evaluation.knn import knn_predict, knn_scores


def data(number, classes=5):
    generator = torch.manual_seed(number)
    return (torch.randn(number, 8, generator=generator),
            torch.randint(classes, (number, ), generator=generator))


def test_it_is_knn_scores_of_labels_as_columns():
    (features, labels), (queries, _) = data(60), data(40)
    torch.testing.assert_close(
        knn_predict(features, labels, queries, 5, k=7),
        knn_scores(features, F.one_hot(labels, 5), queries, k=7))


def test_votes_add_up_to_one_with_fewer_images_than_neighbours():
    (features, labels), (queries, _) = data(3), data(10)
    votes = knn_predict(features, labels, queries, 5, k=200)
    torch.testing.assert_close(votes.sum(1), torch.ones(10))


def test_chunks_change_nothing(monkeypatch):
    (features, labels), (queries, _) = data(60), data(40)
    whole = knn_predict(features, labels, queries, 5)
    monkeypatch.setattr(module, '_LARGEST_CLASS_CHUNK', 180)  # three queries
    torch.testing.assert_close(
        knn_predict(features, labels, queries, 5), whole)


def test_no_query_gets_no_votes():
    features, labels = data(6)
    assert knn_predict(features, labels, features[:0], 5).shape == (0, 5)
