import itertools
import json
from contextlib import redirect_stdout
from io import StringIO

import numpy as np
import pytest

from experiments.byol_comparison import sweep
from experiments.byol_comparison.__main__ import main
from experiments.byol_comparison.settings import Experiment
from experiments.byol_comparison.training import load_config


def write_result(folder, run, **measures):
    folder.mkdir(exist_ok=True)
    (folder / f'{run.stem}.json').write_text(json.dumps({
        **dict(method=run.method, name=run.name, seed=run.seed, epochs=3,
               bf16=True, num_train=64, num_val=8, options=run.options),
        **measures}))


def call(*arguments):
    output = StringIO()
    with redirect_stdout(output), pytest.MonkeyPatch.context() as patch:
        patch.setenv('OMP_NUM_THREADS', '1')  # the command sets it
        main(['sweep', *map(str, arguments)])
    return output.getvalue()


@pytest.mark.parametrize('study', sweep.STUDIES)
def test_design_does_not_confound_effects(study):
    levels = sweep.design(study)
    columns = levels.T
    assert (levels.T @ levels == len(levels) * np.eye(len(columns))).all()
    assert (levels.sum(axis=0) == 0).all()
    for a, b, c in itertools.permutations(columns, 3):
        assert (a * b) @ c == 0  # pairs


@pytest.mark.parametrize('study', sweep.STUDIES)
def test_runs_have_the_values_of_their_levels(study):
    factors = sweep.STUDIES[study][1].values()
    for levels, run in zip(sweep.design(study), sweep.sweep_runs(study)):
        cfg = load_config(Experiment(), run)
        for level, factor in zip(levels, factors):
            value = factor.low if level < 0 else factor.high
            for key in factor.keys:
                found = cfg
                for part in key.split('.'):
                    found = found[int(part) if part.isdigit() else part]
                assert found == float(value)
            if not factor.keys:
                assert run.method == value


@pytest.mark.parametrize('study', sweep.STUDIES)
def test_runs_have_different_seeds(study):
    runs = sweep.sweep_runs(study)
    assert len({run.seed for run in runs}) == len(runs)


def test_report_has_each_setting(tmp_path):
    runs, rng = sweep.sweep_runs('byol'), np.random.default_rng(1)
    for run, levels in zip(runs, sweep.design('byol')):
        write_result(tmp_path, run,
                     linear_mAP=20 + 3 * levels[1] + rng.normal(0, .1),
                     object_linear=30.0)
    write_result(tmp_path, runs[-1]._replace(name='other', seed=1),
                 linear_mAP=99.0)
    lines = call('byol', '--report', '--results', tmp_path).splitlines()
    assert lines[0] == '8 of 8 runs'
    assert lines[2] == '| setting | values | linear mAP, images | ' \
        'linear, objects |'
    assert lines[5].startswith('| EMA, base_momentum | 0.0015 → 0.006 | +')
    effect = float(lines[5].split('|')[3].split('±')[0])
    assert effect == pytest.approx(6, abs=0.3)


def test_sweep_runs_missing_runs(tmp_path):
    results = tmp_path / 'results'
    runs = sweep.sweep_runs('byol')
    for i, run in enumerate(runs[:-1]):
        write_result(results, run, linear_mAP=i, object_linear=i,
                     object_knn=i)
    before = {x: x.stat().st_mtime_ns for x in results.iterdir()}
    output = call('byol', '--results', results, '--data-dir',
                  tmp_path / 'data', '--num-train', 64, '--num-val', 8,
                  '--epochs', 3)
    assert '8 runs, 7 of them done' in output and '8 of 8 runs' in output
    assert {x: x.stat().st_mtime_ns for x in before} == before
    made = json.loads((results / f'{runs[-1].stem}.json').read_text())
    assert made['options'] == list(runs[-1].options)
    assert len(made['curve']) == 3
    assert 'box_AP50' not in made
    assert (results / f'runs/{runs[-1].stem}/backbone.pth').is_file()


def test_report_counts_missing_runs(tmp_path):
    for i, run in enumerate(sweep.sweep_runs('byol')[1:]):
        write_result(tmp_path, run, linear_mAP=float(i % 3))
    assert call('byol', '--report', '--results', tmp_path).startswith(
        '7 of 8 runs; effects are confounded with those of pairs until')


@pytest.mark.parametrize('changes', [
    dict(options=['a=1']), dict(epochs=100), dict(bf16=False)])
def test_report_refuses_runs_of_other_settings(tmp_path, changes):
    for i, run in enumerate(sweep.sweep_runs('byol')):
        write_result(tmp_path, run, linear_mAP=20.0 + i,
                     **(changes if i == 5 else {}))
    with pytest.raises(SystemExit, match='sweep05-seed106.json. has other '
                       'settings than the sweep'):
        call('byol', '--report', '--results', tmp_path)


def test_sweep_refuses_results_of_other_precision(tmp_path):
    for run in sweep.sweep_runs('byol')[:2]:
        write_result(tmp_path, run, linear_mAP=20.0, bf16=False)
    with pytest.raises(SystemExit, match='has other settings'):
        call('byol', '--results', tmp_path, '--num-train', 64, '--num-val', 8)
