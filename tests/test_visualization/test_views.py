import sys

import numpy as np
import pytest
from visual_files import read_png

from univip_mm.visualization import draw_scene_grid, draw_scenes


def make_row(num_instances=4, num_proposed=3, scene_size=224,
             instance_size=96, **changes):
    """Draw a gray image whose views each have their own color."""
    colors = view_colors(2 + num_instances)
    sizes = [scene_size] * 2 + [instance_size] * num_instances
    boxes = np.array([[100 + 20 * k, 90 + 20 * k, 180 + 20 * k, 170 + 20 * k]
                      for k in range(num_instances)]).reshape(-1, 4)
    return draw_scenes(**{
        **dict(
            image=np.full((300, 400, 3), 128, np.uint8),
            proposals=np.concatenate([boxes, [[5, 5, 90, 90]]]),
            scene_boxes=np.array([[0, 0, 300, 300], [80, 60, 400, 300]]),
            overlap_box=np.array([80, 60, 300, 300]),
            instance_boxes=boxes,
            num_proposed=num_proposed,
            views=[np.full((size, size, 3), color, np.uint8)
                   for size, color in zip(sizes, colors)],
            title='gray.jpg'),
        **changes
    })  # yapf: disable


def view_colors(number):
    """Return colors that nothing else in the picture has."""
    return [(255, 0, 20 + 25 * k) for k in range(number)]


def area_of(picture, color):
    """Return top, left, height and width of the rectangle of a color."""
    rows, columns = np.nonzero((picture[..., :3] == color).all(axis=2))
    top, left = rows.min(), columns.min()
    height, width = rows.max() + 1 - top, columns.max() + 1 - left
    assert len(rows) == height * width
    return top, left, height, width


def test_views_are_drawn_pixel_for_pixel():
    rng = np.random.default_rng(0)
    views = [rng.integers(0, 256, (size, size, 3), np.uint8)
             for size in (224, 224, 96, 96, 96, 96)]
    marked = make_row()
    row = make_row(views=views)
    for view, color in zip(views, view_colors(6)):
        top, left, height, width = area_of(marked, color)
        drawn = row[top:top + height, left:left + width]
        zoom = height // len(view)
        assert zoom == 2
        np.testing.assert_array_equal(
            drawn, view.repeat(zoom, axis=0).repeat(zoom, axis=1))


@pytest.mark.parametrize('num_instances', [1, 2, 4, 7])
@pytest.mark.parametrize('sizes', [(224, 96), (96, 48), (32, 32)])
def test_views_do_not_cover_each_other(num_instances, sizes):
    row = make_row(num_instances, 1, *sizes)
    for k, color in enumerate(view_colors(2 + num_instances)):
        _, _, height, width = area_of(row, color)
        assert height == width and height % sizes[k > 1] == 0


def test_augmented_views_form_a_second_line():
    plain, augmented = view_colors(6), [(0, 255, 20 + 25 * k)
                                         for k in range(6)]
    views = [np.full((size, size, 3), color, np.uint8)
             for size, color in zip((224, 224, 96, 96, 96, 96), augmented)]
    row = make_row(augmented=views)
    for above, below in zip(plain, augmented):
        top, left, height, width = area_of(row, above)
        below_top, *rest = area_of(row, below)
        assert rest == [left, height, width]
        assert below_top >= top + height


def test_picture_depends_on_every_box():
    row = make_row()
    other = np.array([[30, 40, 130, 140]] * 4)
    for changes in (dict(proposals=np.zeros((0, 4))),
                    dict(scene_boxes=np.array([[0, 0, 400, 300]] * 2)),
                    dict(overlap_box=np.array([80, 60, 200, 200])),
                    dict(instance_boxes=other), dict(num_proposed=0)):
        assert (make_row(**changes) != row).any(), changes


def test_boxes_are_at_their_pixels():
    image = np.zeros((100, 200, 3), np.uint8)
    image[20:60, 50:150] = (255, 0, 0)
    whole = np.array([[0, 0, 200, 100]] * 2)
    row = make_row(
        num_instances=1, image=image, scene_boxes=whole,
        overlap_box=np.array([0, 0, 200, 100]), proposals=np.zeros((0, 4)),
        instance_boxes=np.array([[50, 20, 150, 60]]))
    photo = row[:, :640].astype(int)
    rows, columns = np.nonzero((photo[..., 0] > 245) & (photo[..., 1] > 200)
                               & (photo[..., 2] < 40))  # the yellow line
    red = np.nonzero((photo[..., 0] > 150) & (photo[..., 1] < 80))
    for line, area in zip((rows, columns), red):
        assert abs(line.min() - area.min()) <= 4
        assert abs(line.max() - area.max()) <= 4


def test_picture_is_written_through_a_link(tmp_path):
    link, target = tmp_path / 'latest.png', tmp_path / 'epoch_1.png'
    link.symlink_to(target.name)
    draw_scene_grid([make_row()], link)
    assert link.is_symlink() and target.is_file()


def test_grid_has_all_rows_below_a_legend(tmp_path):
    rows = [make_row(), make_row(num_instances=2)]
    path = tmp_path / 'new folder' / 'grid.png'
    draw_scene_grid(rows, path)
    grid = read_png(path)
    assert grid.shape[1] == max(row.shape[1] for row in rows)
    assert 1600 <= grid.shape[1] <= 2100
    legend = grid.shape[0] - sum(row.shape[0] for row in rows)
    assert 0 < legend < 100
    first = grid[legend - 1:legend - 1 + rows[0].shape[0]]
    np.testing.assert_array_equal(first[:, :rows[0].shape[1]], rows[0])
    last = grid[-rows[1].shape[0]:]
    np.testing.assert_array_equal(last[:, :rows[1].shape[1]], rows[1])
    assert (last[:, rows[1].shape[1]:] == 255).all()


def test_same_input_gives_same_picture():
    np.testing.assert_array_equal(make_row(), make_row())


def test_drawing_does_not_use_pyplot():
    make_row()
    pyplot = sys.modules.get('matplotlib.pyplot')
    assert pyplot is None or not pyplot.get_fignums()


@pytest.mark.parametrize('changes, message', [
    (dict(views=[np.zeros((9, 9, 3), np.uint8)] * 5), '5 plain views'),
    (dict(augmented=[np.zeros((9, 9, 3), np.uint8)] * 7), '7 augmented'),
    (dict(image=np.zeros((9, 9), np.uint8)), 'the image'),
    (dict(views=[np.zeros((9, 9, 3))] * 6), 'plain view 0 is float64'),
])
def test_draw_scenes_rejects_wrong_images(changes, message):
    with pytest.raises(ValueError, match=message):
        make_row(**changes)


def test_empty_grid_is_rejected(tmp_path):
    with pytest.raises(ValueError, match='no rows'):
        draw_scene_grid([], tmp_path / 'grid.png')
