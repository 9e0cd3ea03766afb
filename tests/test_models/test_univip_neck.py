import pytest
import torch

from univip_mm.models import UniVIPNeck


def test_is_a_linear_layer_on_the_concatenated_instances():
    neck = UniVIPNeck(in_channels=5, num_instances=3, out_channels=7)
    o = torch.randn(2, 3, 5)
    expected = torch.cat([o[:, 0], o[:, 1], o[:, 2]], 1) @ neck.fc.weight.T
    out = neck((o, ))
    assert isinstance(out, tuple) and len(out) == 1
    torch.testing.assert_close(out[0], expected + neck.fc.bias)


@pytest.mark.parametrize('shape', [(2, 4, 5), (2, 3, 6)])
def test_other_instances_or_channels_are_told_with_the_cure(shape):
    neck = UniVIPNeck(in_channels=5, num_instances=3, out_channels=7)
    with pytest.raises(ValueError, match='num_instances'):
        neck((torch.randn(shape), ))
