import numpy as np
import pytest
from visual_files import read_png, write_log

from univip_mm.visualization import (
    plot_growth,
    plot_loss_curves,
    read_scalars,
    smooth,
)


def test_resumed_log_replaces_later_steps(tmp_path):
    # Written in the wrong order: the order of the names counts.
    write_log(tmp_path, '20260102_000000', [3, 4, 5], loss=-1.)
    write_log(tmp_path, '20260101_000000', [1, 2, 3, 4], loss=0.)
    log = read_scalars(tmp_path)
    assert [line['step'] for line in log] == [1, 2, 3, 4, 5]
    assert [line['loss_scene'] for line in log] == [0, 0, -1, -1, -1]


def test_repeated_steps_are_dropped(tmp_path):
    write_log(tmp_path, '20260101_000000', range(1, 9), loss=0.)
    write_log(tmp_path, '20260102_000000', [5, 6], loss=-1.)
    assert [line['step'] for line in read_scalars(str(tmp_path))] == [
        1, 2, 3, 4, 5, 6
    ]


def test_logs_are_joined_in_given_order(tmp_path):
    late = write_log(tmp_path, '20260102_000000', [1, 2], loss=-1.)
    early = write_log(tmp_path, '20260101_000000', [1, 2], loss=0.)
    assert read_scalars([late, early])[0]['loss_scene'] == 0
    assert read_scalars([early, late])[0]['loss_scene'] == -1
    assert read_scalars(str(late))[1]['loss_scene'] == -1


def test_truncated_and_other_lines_are_skipped(tmp_path):
    path = write_log(tmp_path, '20260101_000000', [1, 2])
    # An evaluation writes its own file, without losses.
    other = tmp_path / '20260103_000000' / 'vis_data' / 'scalars.json'
    other.parent.mkdir(parents=True)
    other.write_text('{"accuracy/top1": 12.5, "step": 0}\n')
    with path.open('a') as file:
        file.write('{"accuracy/top1": 12.5, "step": 1}\n{"lr": 0.1, "lo')
    assert [line['step'] for line in read_scalars(tmp_path)] == [1, 2]


def test_missing_log_error_names_path_and_fix(tmp_path):
    with pytest.raises(FileNotFoundError) as e:
        read_scalars(tmp_path / 'nothing')
    assert str(tmp_path / 'nothing') in str(e.value)
    assert 'give the work dir' in str(e.value)
    assert '\n' not in str(e.value)


def test_log_without_losses_is_rejected(tmp_path):
    path = tmp_path / 'scalars.json'
    path.write_text('{"accuracy/top1": 12.5, "step": 1}\n')
    with pytest.raises(ValueError, match='scalars.json.*loss_scene'):
        read_scalars(path)
    path.write_text('not a log\n{"step": 1}\n')
    with pytest.raises(ValueError, match="line 1 of '.*scalars.json'"):
        read_scalars(path)


@pytest.mark.parametrize('more', [{}, dict(plan_entropy=0.9)])
@pytest.mark.parametrize('steps', [[1], range(1, 60)])
def test_loss_curves_have_stated_size(tmp_path, more, steps):
    write_log(tmp_path, '20260101_000000', steps, **more)
    plot_loss_curves(tmp_path, tmp_path / 'new' / 'losses.png')
    assert read_png(tmp_path / 'new' / 'losses.png').shape == (1000, 1800, 3)


@pytest.mark.parametrize('values', [[0, float('nan')], [float('inf')] * 2])
def test_non_finite_losses_are_marked(tmp_path, values):
    paths = [write_log(tmp_path, f'2026010{k}_000000', [k], loss=value)
             for k, value in enumerate(values, 1)]
    plot_loss_curves(paths, tmp_path / 'losses.png')
    picture = read_png(tmp_path / 'losses.png')
    assert (picture == (255, 0, 0)).all(axis=2).any()


def test_smooth_averages_finite_values():
    values = np.array([1., 2., 6., np.nan, 4.])
    np.testing.assert_allclose(smooth(values, 3), [1.5, 3, 4, np.nan, 4])
    np.testing.assert_allclose(smooth(values[:3], 1), values[:3])


def test_smooth_is_exact_for_float32():
    values = np.full(2**16, 0.1, np.float32)
    np.testing.assert_allclose(smooth(values, 9), values, rtol=1e-9)


def test_growth_has_a_panel_per_variable(tmp_path):
    path = tmp_path / 'pictures' / 'growth.png'
    curve = {1: 0.5, 4: 1.0, 16: 7.0}
    plot_growth({'K': {'loader, ms': curve, 'loss, ms': curve},
                 'batch': {'step, ms': curve}}, path)
    picture = read_png(path)
    assert picture.shape == (550, 1300, 3)
    for color in ((0, 0x72, 0xb2), (0xd5, 0x5e, 0)):
        assert (picture == color).all(axis=2).any()
