import json

import pytest

from experiments.byol_comparison.run import check_result
from experiments.byol_comparison.settings import Experiment, Run


def write_result(folder, run, **changes):
    result = dict(
        dict(method=run.method, name=run.name, seed=run.seed, epochs=3,
             options=list(run.options), bf16=False, large=False, num_train=16,
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
    # Only the size differs, not what follows from it.
    experiment.bf16 = False
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
    with pytest.raises(ValueError, match='no detection'):
        check_result(experiment, run, path)
    experiment.skip_detection = True
    check_result(experiment, run, path)
