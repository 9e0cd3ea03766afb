import pytest

from univip_mm.visualization.verdict import judge


def log_of(number=40, first=-2., last=-4., **values):
    """Return a log whose loss falls evenly, with constant other values."""
    step = (last - first) / max(number - 1, 1)
    values = {'projection_std': 0.8, 'time': 1., 'data_time': 0.1, **values}
    return [dict(step=10 * i, loss=first + step * i, loss_scene=-1., **values)
            for i in range(number)]


@pytest.mark.parametrize('log, level, text', [
    ([], 'early', '0 lines'),
    (log_of(4), 'early', '4 lines of the log, at least 5'),
    (log_of(5), 'good', 'the loss fell from -2.00 to -4.00'),
    (log_of(rank_projection=30.), 'good', 'rank_projection is 30'),
    (log_of(first=-3, last=-3), 'watch', 'does not fall (-3.00 in the first'),
    (log_of(first=-3, last=-2), 'watch', 'normal: compare projection_std'),
    (log_of(projection_std=0.25), 'watch', 'projection_std is 0.25'),
    (log_of(projection_std=0.05), 'bad', 'projection_std is 0.05, below 0.1'),
    (log_of(rank_projection=1.4), 'bad', 'rank_projection is 1.4, below 2'),
    # A value that is not logged is no reason.
    ([dict(step=i, loss=-i) for i in range(9)], 'good', 'the loss fell'),
    (log_of() + [dict(step=400, loss=float('nan'))], 'bad',
     'not finite since iteration 400'),
    (log_of(2) + [dict(step=20, loss=float('inf'))], 'bad', 'diverged'),
])
def test_verdict_follows_the_rules(log, level, text):
    found = judge(log)
    assert found.level == level and text in found.text


def test_verdict_uses_recent_values():
    log = log_of(40)
    for line in log[-4:]:
        line['projection_std'] = 0.01
    assert judge(log).level == 'bad'
    # One outlier among the last values is not enough.
    for line in log[-4:-1]:
        line['projection_std'] = 0.8
    assert judge(log).level == 'good'


@pytest.mark.parametrize('values, note', [
    (dict(proposal_share=0.4), 'Only 40% of the instances are proposals'),
    (dict(data_time=0.6), 'waits for data during 60% of the time'),
    (dict(loss_scene_instance=-1.99), 'loss_scene_instance is -1.990, at its'),
])
def test_notes_name_problems(values, note):
    found = judge(log_of(**values))
    assert found.level == 'good' and len(found.notes) == 1
    assert note in found.notes[0]
