import numpy as np
from visual_files import read_png

from univip_mm.visualization import PlanRow, draw_transport
from univip_mm.visualization.transport import line_widths


def test_line_widths_are_proportional_to_mass():
    plan = np.array([[.3, .1], [0, .6]])
    widths = line_widths(plan, 10)
    np.testing.assert_allclose(widths / widths.sum(), plan)
    # The whole mass of one of K equal instances is the widest.
    assert line_widths(np.eye(4) / 4, 10).max() == 10


def test_draw_transport_grows_with_instances(tmp_path):
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (40, 60, 3), np.uint8)
    boxes = np.array([[k, k, 20 + k, 20 + k] for k in range(6)])
    plan = np.full((6, 6), 1 / 36)
    draw_transport(
        [PlanRow('a', picture, boxes, [picture[:, :40]] * 6, plan, plan,
                 plan.sum(1), plan.sum(0))], tmp_path / 'x.png')
    drawn = read_png(tmp_path / 'x.png')
    assert drawn.shape[0] == 76 + 6 * 100 - 16 + 112
