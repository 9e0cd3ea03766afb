import numpy as np
import pytest

from univip_mm.demo import CLASSES
from univip_mm.demo.objects import draw_object


@pytest.mark.parametrize('name', CLASSES)
def test_color_is_independent_of_class(name):
    light = np.array([-0.4, -0.5, 0.77])
    means, shapes = [], []
    for i in range(12):
        color, alpha = draw_object(name, np.random.default_rng(i), 60, light)
        assert color.shape == (*alpha.shape, 3)
        assert alpha.min() >= 0 and alpha.max() == pytest.approx(1, abs=0.01)
        # Premultiplied: no color outside the object.
        assert (color <= 255 * alpha[..., None] + 1e-3).all()
        means.append(color.sum((0, 1)) / alpha.sum())
        shapes.append(alpha.shape)
    assert np.std(means, axis=0).min() > 12
    assert len(set(shapes)) > 1
