import pytest
import torch

from univip_mm.models import UniVIPNeck


def test_univip_neck_is_linear_layer_on_concatenation():
    neck = UniVIPNeck(in_channels=5, num_instances=3, out_channels=7)
    o = torch.randn(2, 3, 5)
    expected = torch.cat([o[:, 0], o[:, 1], o[:, 2]], 1) @ neck.fc.weight.T
    out = neck((o, ))
    assert isinstance(out, tuple) and len(out) == 1
    torch.testing.assert_close(out[0], expected + neck.fc.bias)


@pytest.mark.parametrize('shape, message', [
    ((2, 4, 5), 'is 4, but model.fusion_neck.num_instances is 3: set '),
    ((2, 3, 6), '6 channels, but in_channels is 5: set '),
])
def test_univip_neck_rejects_other_shapes(shape, message):
    neck = UniVIPNeck(in_channels=5, num_instances=3, out_channels=7)
    with pytest.raises(ValueError, match=message):
        neck((torch.randn(shape), ))
