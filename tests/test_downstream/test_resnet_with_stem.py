import torch

from univip_mm.registry import MODELS


def test_resnet_with_stem_returns_stem_first(univip_scope):
    options = dict(depth=18, base_channels=4, stem_channels=4)
    plain = MODELS.build(dict(type='ResNet', out_indices=(0, 1, 2, 3),
                              **options))
    plain.eval()  # eval() of the host returns None
    with_stem = MODELS.build(dict(type='ResNetWithStem', **options))
    with_stem.load_state_dict(plain.state_dict(), strict=True)
    with_stem.eval()
    image = torch.randn(1, 3, 64, 64)
    stem, *stages = with_stem(image)
    for found, expected in zip(stages, plain(image), strict=True):
        assert torch.equal(found, expected)
    expected = plain.norm1(plain.conv1(image)).relu()
    assert torch.equal(stem, expected)
