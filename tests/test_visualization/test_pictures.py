import json
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from tiny import error_of, run_tool

from univip_mm.visualization import (
    draw_scene_sheet,
    draw_scenes,
    plot_growth,
    plot_loss_curves,
    read_scalars,
    smooth,
)

ROOT = Path(__file__).parents[2]


def a_row(num_instances=4, num_proposed=3, scene_size=224, instance_size=96,
          **changes):
    """A grey photograph whose views each have a colour of their own."""
    colours = view_colours(2 + num_instances)
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
            views=[np.full((size, size, 3), colour, np.uint8)
                   for size, colour in zip(sizes, colours)],
            title='grey.jpg'),
        **changes
    })  # yapf: disable


def view_colours(number):
    """Colours that nothing else in the picture has."""
    return [(255, 0, 20 + 25 * k) for k in range(number)]


def area_of(picture, colour):
    """Top, left, height and width of the pixels of a colour, which must fill
    their rectangle."""
    rows, columns = np.nonzero((picture[..., :3] == colour).all(axis=2))
    top, left = rows.min(), columns.min()
    height, width = rows.max() + 1 - top, columns.max() + 1 - left
    assert len(rows) == height * width
    return top, left, height, width


def test_views_stand_beside_the_photograph_pixel_for_pixel():
    rng = np.random.default_rng(0)
    views = [rng.integers(0, 256, (size, size, 3), np.uint8)
             for size in (224, 224, 96, 96, 96, 96)]
    marked = a_row()
    row = a_row(views=views)
    for view, colour in zip(views, view_colours(6)):
        top, left, height, width = area_of(marked, colour)
        drawn = row[top:top + height, left:left + width]
        zoom = height // len(view)
        assert zoom == 2
        np.testing.assert_array_equal(
            drawn, view.repeat(zoom, axis=0).repeat(zoom, axis=1))


@pytest.mark.parametrize('num_instances', [1, 2, 4, 7])
@pytest.mark.parametrize('sizes', [(224, 96), (96, 48), (32, 32)])
def test_no_view_covers_another(num_instances, sizes):
    row = a_row(num_instances, 1, *sizes)
    for k, colour in enumerate(view_colours(2 + num_instances)):
        _, _, height, width = area_of(row, colour)
        assert height == width and height % sizes[k > 1] == 0


def test_augmented_views_make_a_second_line():
    plain, augmented = view_colours(6), [(0, 255, 20 + 25 * k)
                                         for k in range(6)]
    views = [np.full((size, size, 3), colour, np.uint8)
             for size, colour in zip((224, 224, 96, 96, 96, 96), augmented)]
    row = a_row(augmented=views)
    for above, below in zip(plain, augmented):
        top, left, height, width = area_of(row, above)
        below_top, *rest = area_of(row, below)
        assert rest == [left, height, width]
        assert below_top >= top + height


def test_what_is_drawn_on_the_photograph_depends_on_the_boxes():
    row = a_row()
    other = np.array([[30, 40, 130, 140]] * 4)
    for changes in (dict(proposals=np.zeros((0, 4))),
                    dict(scene_boxes=np.array([[0, 0, 400, 300]] * 2)),
                    dict(overlap_box=np.array([80, 60, 200, 200])),
                    dict(instance_boxes=other), dict(num_proposed=0)):
        assert (a_row(**changes) != row).any(), changes


def test_boxes_are_at_their_place_on_the_photograph():
    image = np.zeros((100, 200, 3), np.uint8)
    image[20:60, 50:150] = (255, 0, 0)
    nowhere = np.array([[0, 0, 200, 100]] * 2)
    row = a_row(
        num_instances=1, image=image, scene_boxes=nowhere,
        overlap_box=np.array([0, 0, 200, 100]), proposals=np.zeros((0, 4)),
        instance_boxes=np.array([[50, 20, 150, 60]]))
    photo = row[:, :640].astype(int)
    rows, columns = np.nonzero((photo[..., 0] > 245) & (photo[..., 1] > 200)
                               & (photo[..., 2] < 40))  # the yellow line
    red = np.nonzero((photo[..., 0] > 150) & (photo[..., 1] < 80))
    for line, area in zip((rows, columns), red):
        assert abs(line.min() - area.min()) <= 4
        assert abs(line.max() - area.max()) <= 4


def test_sheet_holds_all_rows_below_a_legend(tmp_path):
    rows = [a_row(), a_row(num_instances=2)]
    path = tmp_path / 'new folder' / 'sheet.png'
    draw_scene_sheet(rows, path)
    sheet = read_png(path)
    assert sheet.shape[1] == max(row.shape[1] for row in rows)
    assert 1600 <= sheet.shape[1] <= 2100
    legend = sheet.shape[0] - sum(row.shape[0] for row in rows)
    assert 0 < legend < 100
    first = sheet[legend - 1:legend - 1 + rows[0].shape[0]]
    np.testing.assert_array_equal(first[:, :rows[0].shape[1]], rows[0])
    last = sheet[-rows[1].shape[0]:]
    np.testing.assert_array_equal(last[:, :rows[1].shape[1]], rows[1])
    assert (last[:, rows[1].shape[1]:] == 255).all()


def test_the_same_input_gives_the_same_picture():
    np.testing.assert_array_equal(a_row(), a_row())


def test_drawing_leaves_pyplot_alone():
    a_row()
    pyplot = sys.modules.get('matplotlib.pyplot')
    assert pyplot is None or not pyplot.get_fignums()


@pytest.mark.parametrize('changes, message', [
    (dict(views=[np.zeros((9, 9, 3), np.uint8)] * 5), '5 plain views'),
    (dict(augmented=[np.zeros((9, 9, 3), np.uint8)] * 7), '7 augmented'),
    (dict(image=np.zeros((9, 9), np.uint8)), 'the image'),
    (dict(views=[np.zeros((9, 9, 3))] * 6), 'plain view 0 is float64'),
])
def test_wrong_pictures_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        a_row(**changes)


def test_a_sheet_without_rows_is_refused(tmp_path):
    with pytest.raises(ValueError, match='no rows'):
        draw_scene_sheet([], tmp_path / 'sheet.png')


def read_png(path):
    picture = matplotlib.image.imread(path)[..., :3]
    return (picture * 255).round().astype(np.uint8)


def write_log(work_dir, time, steps, loss=0., **more):
    path = work_dir / time / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text(''.join(
        json.dumps(
            dict(lr=0.1, loss=3 * loss, loss_scene=loss, loss_instance=loss,
                 loss_scene_instance=loss, epoch=1, iter=step, step=step,
                 **more)) + '\n' for step in steps))
    return path


def test_a_resumed_run_takes_over_from_its_first_step(tmp_path):
    # Written in the wrong order: the names count.
    write_log(tmp_path, '20260102_000000', [3, 4, 5], loss=-1.)
    write_log(tmp_path, '20260101_000000', [1, 2, 3, 4], loss=0.)
    log = read_scalars(tmp_path)
    assert [line['step'] for line in log] == [1, 2, 3, 4, 5]
    assert [line['loss_scene'] for line in log] == [0, 0, -1, -1, -1]


def test_steps_that_a_resumed_run_went_back_over_are_gone(tmp_path):
    write_log(tmp_path, '20260101_000000', range(1, 9), loss=0.)
    write_log(tmp_path, '20260102_000000', [5, 6], loss=-1.)
    assert [line['step'] for line in read_scalars(str(tmp_path))] == [
        1, 2, 3, 4, 5, 6
    ]


def test_files_are_joined_in_the_order_given(tmp_path):
    late = write_log(tmp_path, '20260102_000000', [1, 2], loss=-1.)
    early = write_log(tmp_path, '20260101_000000', [1, 2], loss=0.)
    assert read_scalars([late, early])[0]['loss_scene'] == 0
    assert read_scalars([early, late])[0]['loss_scene'] == -1
    assert read_scalars(str(late))[1]['loss_scene'] == -1


def test_lines_without_a_loss_or_cut_off_are_left_out(tmp_path):
    path = write_log(tmp_path, '20260101_000000', [1, 2])
    # A test of the checkpoint writes a file of its own, without losses.
    other = tmp_path / '20260103_000000' / 'vis_data' / 'scalars.json'
    other.parent.mkdir(parents=True)
    other.write_text('{"accuracy/top1": 12.5, "step": 0}\n')
    with path.open('a') as file:
        file.write('{"accuracy/top1": 12.5, "step": 1}\n{"lr": 0.1, "lo')
    assert [line['step'] for line in read_scalars(tmp_path)] == [1, 2]


def test_a_missing_log_is_named_with_the_cure(tmp_path):
    with pytest.raises(FileNotFoundError) as e:
        read_scalars(tmp_path / 'nothing')
    assert str(tmp_path / 'nothing') in str(e.value)
    assert 'give the work dir' in str(e.value)
    assert '\n' not in str(e.value)


def test_a_log_without_losses_is_refused(tmp_path):
    path = tmp_path / 'scalars.json'
    path.write_text('{"accuracy/top1": 12.5, "step": 1}\n')
    with pytest.raises(ValueError, match='scalars.json.*loss_scene'):
        read_scalars(path)
    path.write_text('not a log\n{"step": 1}\n')
    with pytest.raises(ValueError, match="line 1 of '.*scalars.json'"):
        read_scalars(path)


@pytest.mark.parametrize('more', [{}, dict(plan_entropy=0.9)])
@pytest.mark.parametrize('steps', [[1], range(1, 60)])
def test_curves_are_a_picture_of_the_stated_size(tmp_path, more, steps):
    write_log(tmp_path, '20260101_000000', steps, **more)
    plot_loss_curves(tmp_path, tmp_path / 'new' / 'losses.png')
    assert read_png(tmp_path / 'new' / 'losses.png').shape == (1000, 1800, 3)


@pytest.mark.parametrize('values', [[0, float('nan')], [float('inf')] * 2])
def test_losses_that_are_not_finite_are_marked(tmp_path, values):
    paths = [write_log(tmp_path, f'2026010{k}_000000', [k], loss=value)
             for k, value in enumerate(values, 1)]
    plot_loss_curves(paths, tmp_path / 'losses.png')
    picture = read_png(tmp_path / 'losses.png')
    assert (picture == (255, 0, 0)).all(axis=2).any()


def test_the_average_runs_over_the_finite_values_around():
    values = np.array([1., 2., 6., np.nan, 4.])
    np.testing.assert_allclose(smooth(values, 3), [1.5, 3, 4, np.nan, 4])
    np.testing.assert_allclose(smooth(values[:3], 1), values[:3])


@pytest.mark.parametrize('options', [['--no-augment'], [], ['--augment']])
def test_browse_dataset_draws_samples(coco_folder, options, capsys):
    run_tool(
        'browse_dataset',
        ROOT / 'configs' / 'univip_r18_coco.py', '--output-dir',
        coco_folder / 'out', '--show-number', '5', *options, '--cfg-options',
        f'train_dataloader.dataset.data_root={coco_folder}',
        'train_dataloader.dataset.ann_file=train.json',
        'train_dataloader.dataset.proposal_file=train.npz',
        'train_dataloader.dataset.data_prefix.img_path=images')
    said = capsys.readouterr().out
    assert '5 images of 8' in said and 'of 20 instances' in said
    for number in (1, 2):
        path = coco_folder / 'out' / f'scenes_{number:03}.png'
        assert str(path) in said and path.is_file()
    four, one = (read_png(coco_folder / 'out' / f'scenes_00{n}.png').shape
                 for n in (1, 2))
    assert four[0] > 3 * one[0] and four[1] == one[1]


def test_plot_losses_writes_into_the_work_dir(tmp_path, capsys):
    write_log(tmp_path, '20260101_000000', [1, 2, 3])
    run_tool('plot_losses', tmp_path)
    assert (tmp_path / 'losses.png').is_file()
    assert str(tmp_path / 'losses.png') in capsys.readouterr().out
    assert error_of('plot_losses', tmp_path / 'nothing').startswith(
        'error: no training log')


def test_growth_has_a_panel_for_each_thing_that_grows(tmp_path):
    path = tmp_path / 'pictures' / 'growth.png'
    curve = {1: 0.5, 4: 1.0, 16: 7.0}
    plot_growth({'K': {'loader, ms': curve, 'loss, ms': curve},
                 'batch': {'step, ms': curve}}, path)
    picture = (255 * matplotlib.image.imread(path)[..., :3]).round()
    assert picture.shape == (550, 1300, 3)
    for colour in ((0, 0x72, 0xb2), (0xd5, 0x5e, 0)):
        assert (picture == colour).all(axis=2).any()
