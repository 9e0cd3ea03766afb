import itertools
import json
import re
import sys

import numpy as np
import pytest
from tiny import load_tool, run_tool

quality = load_tool('benchmarks/quality')
sweep = load_tool('benchmarks/quality_sweep')


def commands(study, folder='nowhere'):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', ['x', study, '--results', str(folder)])
        return sweep.commands(sweep.parse_args())


def write(folder, name, command, **measures):
    arm, label, seed = re.fullmatch(r'(.*)-(.*)-seed(\d+)', name).groups()
    folder.mkdir(exist_ok=True)
    (folder / f'{name}.json').write_text(json.dumps({
        **dict(arm=arm, name=label, seed=int(seed), epochs=3, bf16=True,
               num_train=64,
               options=command[command.index('--cfg-options') + 1:]),
        **measures}))


@pytest.mark.parametrize('study', sweep.STUDIES)
def test_settings_are_not_mixed_with_others_or_with_pairs(study):
    levels = sweep.design(study)
    columns = levels.T
    assert (levels.T @ levels == len(levels) * np.eye(len(columns))).all()
    assert (levels.sum(axis=0) == 0).all()
    for a, b, c in itertools.permutations(columns, 3):
        assert (a * b) @ c == 0


@pytest.mark.parametrize('study', sweep.STUDIES)
def test_each_run_trains_with_its_values(study):
    levels = sweep.design(study)
    factors = sweep.STUDIES[study][1].values()
    for row, options in zip(levels, commands(study).values()):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, 'argv', ['quality.py', *options])
            args = quality.parse_args()
        cfg = quality.load_config(args, args.arms[0], args.seeds[0])
        for level, factor in zip(row, factors):
            value = factor.low if level < 0 else factor.high
            for key in factor.keys:
                found = cfg
                for part in key.split('.'):
                    found = found[int(part) if part.isdigit() else part]
                assert found == float(value)
            if not factor.keys:
                assert args.arms == [value]


def test_each_run_has_its_own_seed():
    for study in sweep.STUDIES:
        names = list(commands(study))
        assert len({x.split('seed')[-1] for x in names}) == len(names)


def test_the_report_has_each_setting(tmp_path, capsys):
    levels = sweep.design('byol')
    rng = np.random.default_rng(1)
    for (name, options), row in zip(commands('byol').items(), levels):
        write(tmp_path, name, options,
              linear_mAP=20 + 3 * row[1] + rng.normal(0, .1),
              object_linear=30.0)
    write(tmp_path, 'byol-other-seed1', options, linear_mAP=99.0)
    run_tool('benchmarks/quality_sweep', 'byol', '--report', '--results',
             tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == '8 of 8 runs'
    assert lines[2] == '| setting | values | linear mAP, images | ' \
        'linear, objects |'
    assert lines[5].startswith('| EMA, base_momentum | 0.0015 → 0.006 | +')
    effect = float(lines[5].split('|')[3].split('±')[0])
    assert effect == pytest.approx(6, abs=0.3)


def test_only_what_is_missing_is_run(tmp_path, capsys):
    results = tmp_path / 'results'
    wanted = commands('byol')
    names = list(wanted)
    for i, name in enumerate(names[:-1]):
        write(results, name, wanted[name], linear_mAP=i, object_linear=i,
              object_knn=i)
    before = {x: x.stat().st_mtime_ns for x in results.iterdir()}
    run_tool('benchmarks/quality_sweep', 'byol', '--results', results,
             '--data-dir', tmp_path / 'data',
             '--num-train', 64, '--num-val', 8, '--epochs', 3, '--bf16')
    said = capsys.readouterr().out
    assert '8 runs, 7 of them done' in said and '8 of 8 runs' in said
    assert {x: x.stat().st_mtime_ns for x in before} == before
    made = json.loads((results / f'{names[-1]}.json').read_text())
    assert made['bf16'] and len(made['curve']) == 3
    assert 'box_AP50' not in made
    assert (results / f'runs/{names[-1]}/backbone.pth').is_file()


def test_the_report_says_when_runs_are_missing(tmp_path, capsys):
    for i, (name, options) in enumerate(list(commands('byol').items())[1:]):
        write(tmp_path, name, options, linear_mAP=float(i % 3))
    run_tool('benchmarks/quality_sweep', 'byol', '--report', '--results',
             tmp_path)
    assert capsys.readouterr().out.startswith(
        '7 of 8 runs; until all are there, effects are mixed with those of')


@pytest.mark.parametrize('changes', [
    dict(options=['a=1']), dict(epochs=100), dict(bf16=False)])
def test_runs_of_other_settings_are_not_mixed_in(tmp_path, changes):
    for i, (name, options) in enumerate(commands('byol').items()):
        write(tmp_path, name, options, linear_mAP=20.0 + i,
              **(changes if i == 5 else {}))
    with pytest.raises(SystemExit, match='sweep05-seed106.json. is of other '
                       'settings than the sweep'):
        run_tool('benchmarks/quality_sweep', 'byol', '--report', '--results',
                 tmp_path)


@pytest.mark.parametrize('options, words', [
    (['byol', '--report', '--results', 'nowhere'], 'has no runs'),
    (['byol', '--jobs', '0'], 'at least 1'),
    (['byol', '--report', '--nonsense'], 'nonsense'),
])
def test_mistakes_are_told_in_a_line(options, words, capsys):
    with pytest.raises(SystemExit) as e:
        run_tool('benchmarks/quality_sweep', *options)
    assert words in f'{e.value.code} {capsys.readouterr().err}'


def test_what_is_there_must_be_of_the_same_precision(tmp_path):
    for name, options in list(commands('byol').items())[:2]:
        write(tmp_path, name, options, linear_mAP=20.0)
    with pytest.raises(SystemExit, match='other settings than the sweep'):
        run_tool('benchmarks/quality_sweep', 'byol', '--results', tmp_path)
