import numpy as np
import torch

from experiments.byol_comparison.figures import (
    GREEN,
    add_frame,
    covered_share,
    scene_loss,
)


def test_covered_share_counts_pixels_once():
    box = np.array([10, 10, 30, 20])
    assert covered_share(box, np.array([[0, 0, 20, 40]])) == 0.5
    assert covered_share(box, np.array([[0, 0, 20, 40.2],
                                        [10, 10, 15, 15]])) == 0.5
    assert covered_share(box, np.array([[40, 0, 60, 40]])) == 0
    assert covered_share(box, np.array([[0, 0, 99, 99]])) == 1


def test_add_frame_keeps_the_image():
    image = torch.full((3, 10, 10), 7, dtype=torch.uint8)
    framed = add_frame(image, GREEN)
    assert framed.shape == (18, 18, 3)
    assert (framed[4:-4, 4:-4] == 7).all()
    assert framed[0, 0].tolist() == framed[-1, -1].tolist() == list(GREEN)


def test_scene_loss_halves_the_loss_of_byol():
    univip = dict(curve=[dict(loss=-3.0, loss_scene=-1.0)])
    byol = dict(curve=[dict(loss=-3.0)])
    assert scene_loss(univip) == [-1.0] and scene_loss(byol) == [-1.5]
