import torch
from mmengine.structures import BaseDataElement

from univip_mm.downstream.features import FeatureHead, MarkSplit


def predict(pool):
    maps = torch.randn(2, 3, 7, 7, generator=torch.manual_seed(0))
    found = FeatureHead(pool).predict(
        (None, maps), [BaseDataElement(), BaseDataElement()])
    return maps, torch.stack([x.feature for x in found])


def test_the_last_map_is_averaged():
    maps, features = predict(None)
    torch.testing.assert_close(features, maps.mean((2, 3)))


def test_or_pooled_to_a_grid():
    maps, features = predict(dict(kernel_size=6, stride=1))
    assert features.shape == (2, 3 * 2 * 2)
    torch.testing.assert_close(features[:, 0], maps[:, 0, :6, :6].mean((1, 2)))


def test_the_split_is_written_to_the_sample():
    sample = dict(img_path='a.jpg')
    assert MarkSplit('val')(sample) == dict(img_path='a.jpg', split='val')
