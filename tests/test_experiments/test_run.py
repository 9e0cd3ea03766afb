import json

import pytest

from experiments.byol_comparison.run import check_result, remaining_time
from experiments.byol_comparison.settings import Experiment, Run


def write_result(folder, run, **changes):
    result = dict(
        dict(method=run.method, name=run.name, seed=run.seed, epochs=3,
             options=list(run.options), bf16=True, large=False, num_train=16,
             num_val=8, box_AP50=1.0), **changes)
    path = folder / f'{run.stem}.json'
    path.write_text(json.dumps(result))
    return path


@pytest.mark.parametrize('wanted, words', [
    ({}, None),
    (dict(large=True), 'large False, not True'),
    (dict(epochs=4), 'epochs 3, not 4'),
    (dict(num_train=17), 'num_train 16, not 17')])
def test_check_result_compares_settings(tmp_path, wanted, words):
    run = Run('univip', 5, 'tiny', ('a=1', ))
    path = write_result(tmp_path, run)
    experiment = Experiment(**dict(dict(num_train=16, num_val=8), **wanted))
    if words is None:
        check_result(experiment, run, path)
    else:
        with pytest.raises(ValueError, match=words):
            check_result(experiment, run, path)


def test_check_result_asks_for_detection(tmp_path):
    run = Run('univip', 5)
    path = write_result(tmp_path, run)
    result = json.loads(path.read_text())
    del result['box_AP50']
    path.write_text(json.dumps(result))
    experiment = Experiment(num_train=16, num_val=8)
    experiment.work_dir = str(tmp_path / 'runs')
    with pytest.raises(ValueError, match='no detection, and .* is missing'):
        check_result(experiment, run, path)
    experiment.skip_detection = True
    check_result(experiment, run, path)


def test_remaining_time_is_estimated_by_finished_runs(tmp_path):
    experiment = Experiment(results=str(tmp_path), epochs=6)
    missing = [Run('byol', 7), Run('univip', 7), Run('random', 7)]
    assert 'no finished run' in remaining_time(experiment, missing, 1)
    for method, seed, seconds in (
            ('byol', 1, 300), ('byol', 2, 600), ('byol', 3, 900)):
        write_result(tmp_path, Run(method, seed), total_seconds=seconds,
                     curve=[{}])
    # Three epochs took 600 s; UniVIP has no run and is taken as BYOL.
    assert remaining_time(experiment, missing, 2) == (
        'to do: 3 runs, about 0 h 20 min with --jobs 2')
    write_result(tmp_path, Run('univip', 1), total_seconds=3600, curve=[{}])
    assert 'about 2 h 20 min' in remaining_time(experiment, missing, 1)
    # Detection alone does not count, and earlier results have no total.
    write_result(tmp_path, missing[0])
    write_result(tmp_path, Run('univip', 1), seconds=1800, curve=[{}])
    assert 'about 1 h 00 min' in remaining_time(experiment, missing, 1)
