from pathlib import Path

import pytest

from experiments.byol_comparison.options import experiment_of, parse_args
from experiments.byol_comparison.settings import SMALL


@pytest.mark.parametrize('options, data, number', [
    ([], 'data/quality', 3000), (['--large'], 'data/quality_large', 12000)])
def test_large_version_has_its_own_folders(options, data, number):
    experiment = experiment_of(parse_args(['run', *options]))
    assert (experiment.data_dir, experiment.num_train) == (data, number)
    assert experiment.results == f'work_dirs/{Path(data).name}/results'
    assert experiment.work_dir == f'work_dirs/{Path(data).name}/runs'
    assert experiment.bf16


def test_sweep_has_its_own_folders():
    experiment = experiment_of(parse_args(['sweep', 'univip']))
    assert experiment.results == f'{SMALL.work_dir}/sweep'
    assert experiment.work_dir == f'{SMALL.work_dir}/sweep/runs'
    assert experiment.skip_detection


@pytest.mark.parametrize('options, data', [
    ([], 'data/quality'), (['--large'], 'data/quality_large')])
def test_photographs_do_not_overwrite_scenes(options, data, capsys):
    with pytest.raises(SystemExit):
        parse_args(['run', '--ann-file', 'a.json', '--img-prefix', 'images',
                    '--name', 'x', *options])
    assert f"scenes of '{data}': give another" in capsys.readouterr().err


@pytest.mark.parametrize('options, words', [
    (['run', '--ann-file', 'a.json', '--img-prefix', 'b'], '--name NAME'),
    (['run', '--ann-file', 'a.json', '--name', 'b'], 'give both or none'),
    (['run', '--ann-file', 'a.json', '--img-prefix', 'b', '--name', 'c'],
     'another --data-dir'),
    (['run', '--cfg-options', 'a=1'], '--name NAME'),
    (['run', '--float32'], '--name NAME'),
    (['run', '--skip-detection'], '--name NAME'),
    (['run', '--epochs', '9'], '--epochs without --name'),
    (['run', '--jobs', '0'], 'at least 1'),
    (['run', '--epochs', '2'], 'at least 3'),
    (['sweep', 'byol', '--jobs', '0'], 'at least 1'),
    (['sweep', 'byol', '--epochs', '2'], 'at least 3'),
    (['sweep', 'byol', '--report', '--nonsense'], 'nonsense'),
])
def test_invalid_options_are_reported(options, words, capsys):
    with pytest.raises(SystemExit):
        parse_args(options)
    assert words in capsys.readouterr().err
