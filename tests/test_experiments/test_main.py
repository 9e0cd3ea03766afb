"""Commands on a folder where two tiny runs are trained for real."""
import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from PIL import Image

from experiments.byol_comparison.__main__ import main
from experiments.byol_comparison.settings import MEASURES


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('comparison')


def common(folder, *options):
    return [
        '--data-dir', folder / 'data', '--results', folder / 'results',
        '--work-dir', folder / 'runs', '--seeds', 5, '--name', 'tiny',
        *options]


def run_options(folder, *options):
    return common(
        folder, '--num-train', 16, '--num-val', 8, '--epochs', 3, *options,
        '--cfg-options', 'train_dataloader.batch_size=4')


def call(*arguments):
    """Call a command; return its output, and its error message or ''."""
    output, message = io.StringIO(), ''
    with redirect_stdout(output), redirect_stderr(output), \
            pytest.MonkeyPatch.context() as patch:
        patch.setenv('OMP_NUM_THREADS', '1')  # the command sets it
        try:
            main([str(x) for x in arguments])
        except SystemExit as e:
            message = str(e.code)
    return output.getvalue(), message


def result(folder, method):
    path = folder / f'results/{method}-tiny-seed5.json'
    return json.loads(path.read_text()), path.stat().st_mtime_ns


@pytest.fixture(scope='module')
def trained(folder):
    """Output of a command that trains two runs, each in a process."""
    output, message = call('run', *run_options(
        folder, '--methods', 'random', 'univip', '--jobs', 2))
    assert not message, message
    return output


def test_run_trains_and_evaluates(folder, trained):
    for method in ('random', 'univip'):
        measured, _ = result(folder, method)
        assert measured['method'] == method
        assert measured['seed'] == 5 and measured['num_train'] == 16
        for key in MEASURES:
            assert 0 <= measured[key] <= 100
        assert measured['rank'] >= 1
        assert measured['total_seconds'] >= measured['seconds']
    losses = result(folder, 'univip')[0]['curve'][0]
    assert {'loss', 'loss_scene', 'loss_instance'} <= losses.keys()
    assert f"runs finished: 2; results in '{folder}/results'" in trained
    assert '| univip-tiny | 1 |' in trained


def test_run_skips_finished_runs(folder, trained):
    before = result(folder, 'univip')
    output, _ = call('run', *run_options(
        folder, '--methods', 'random', 'univip'))
    assert '2 runs, 2 of them done' in output
    assert result(folder, 'univip') == before


def test_run_adds_a_missing_detection(folder, trained):
    path = folder / 'results/univip-tiny-seed5.json'
    wanted = path.read_text()
    measured = json.loads(wanted)
    score = measured.pop('box_AP50')
    path.write_text(json.dumps(measured))
    _, message = call('run', *run_options(folder, '--methods', 'univip'))
    assert not message, message
    again = json.loads(path.read_text())
    assert again.pop('box_AP50') == pytest.approx(score, abs=1e-6)
    assert again == measured
    path.write_text(wanted)


@pytest.mark.parametrize('options, words', [
    (['optim_wrapper.optimizer.lr=5.0'], 'has other settings (options'),
    (['--float32'], 'has other settings (bf16 True, not False)')])
def test_run_refuses_results_of_other_settings(folder, trained, options,
                                               words):
    before = result(folder, 'univip')
    _, message = call('run', *run_options(folder, '--methods', 'univip'),
                      *options)
    assert words in message
    assert result(folder, 'univip') == before


def test_run_names_failed_runs(folder, trained):
    _, message = call(
        'run', *run_options(folder, '--methods', 'univip', 'byol', '--jobs',
                            2, '--results', folder / 'others'),
        'optim_wrapper.optimizer.type=NoSuch')
    assert message.startswith('error: 2 of 2 runs failed: ')
    logs = {method: folder / f'runs/{method}-tiny-seed5.log'
            for method in ('univip', 'byol')}
    for method, log in logs.items():
        assert f'{method}, seed 5 (see {log})' in message
    # Its work dir belongs to the run that is done.
    assert 'belongs to a run with other settings: give another' in \
        logs['univip'].read_text()
    assert 'NoSuch' in logs['byol'].read_text()
    assert not list((folder / 'others').glob('*.json'))


def test_run_refuses_data_of_other_size(folder, trained):
    _, message = call('run', *run_options(
        folder, '--methods', 'byol', '--num-train', 32))
    assert "data' has 16 images to train on, not 32: give another" in message


def test_run_refuses_zero_scenes(folder):
    _, message = call('run', *run_options(
        folder, '--num-train', 0, '--data-dir', folder / 'none'))
    assert message.startswith('error: ')
    assert not (folder / 'none').exists()


def test_float32_trains_to_other_losses(folder, trained):
    _, message = call('run', *run_options(
        folder, '--methods', 'univip', '--float32', '--name', 'float32',
        '--skip-detection'))
    assert not message, message
    exact = json.loads(
        (folder / 'results/univip-float32-seed5.json').read_text())
    assert exact['bf16'] is False
    first, bf16 = exact['curve'][0], result(folder, 'univip')[0]['curve'][0]
    assert 0 < abs(first['loss_scene'] - bf16['loss_scene']) < 0.05


def test_dry_run_prints_missing_runs(folder, trained):
    output, _ = call('run', *run_options(
        folder, '--methods', 'univip', 'byol', '--dry-run'))
    assert '2 runs, 1 of them done' in output
    assert f'to do: byol, seed 5: {folder}/results/byol-tiny-seed5.json' \
        in output
    assert '| method |' not in output
    assert 'to do: 1 runs, about 0 h 0' in output


@pytest.mark.parametrize('command', [['ranks'],
                                     ['figures', 'neighbours', 'none.png']])
def test_missing_networks_are_reported(folder, trained, command):
    _, message = call(*command, *common(folder), '--seeds', 77)
    assert 'has no network of these runs: ' in message
    assert 'univip, seed 77' in message and 'Train them first' in message


def test_instances_prints_a_row_per_method(folder, trained):
    output, _ = call('instances', '--data-dir', folder / 'data', '--seeds', 5)
    lines = output.splitlines()
    assert lines[2].startswith('| UniVIP (both) | ')
    assert lines[3].startswith('| UniVIP, random boxes | ')


def test_ranks_prints_a_row_per_network(folder, trained):
    output, message = call('ranks', *common(folder))
    assert not message, message
    lines = output.splitlines()
    head = [i for i, x in enumerate(lines)
            if x.startswith('| method | seed |')]
    rows = [x.split(' | ') for x in lines[head[0] + 2:]]
    assert [row[0] for row in rows] == ['| random initialization',
                                        '| UniVIP (both)']
    assert all(1 <= float(rank.strip(' |')) <= 128
               for row in rows for rank in row[2:])


def test_figures_draws_results(folder, trained):
    path = folder / 'figures/results.png'
    output, _ = call('figures', 'results', path, *common(folder))
    assert f'figure: {path}' in output
    with Image.open(path) as image:
        assert image.width > 1000


def test_figures_draws_neighbours(folder, trained):
    path = folder / 'figures/neighbours.png'
    output, message = call('figures', 'neighbours', path, *common(folder))
    assert f'figure: {path}' in output, message
    with Image.open(path) as image:  # two methods have networks
        assert 600 < image.width < 700


@pytest.mark.parametrize('options, words', [
    (['report', '--results', 'nowhere'], 'has no results'),
    (['figures', 'neighbours', 'x.png', '--work-dir', 'nowhere'],
     'no network'),
    (['sweep', 'byol', '--report', '--results', 'nowhere'], 'has no runs')])
def test_missing_folders_are_reported(options, words):
    _, message = call(*options)
    assert message.startswith('error: ') and words in message
    assert not Path('nowhere').exists()


def test_untrained_ranks_have_a_row_per_kind_of_filter(folder, trained):
    output, message = call('ranks', '--untrained', '--data-dir',
                           folder / 'data', '--seeds', 5, 6)
    assert not message, message
    rows = [x.split(' | ') for x in output.splitlines()
            if x.startswith(('| any', '| zero'))]
    assert [x[0] for x in rows] == ['| any', '| zero']
    for row in rows:
        # 16 images have at most 15 directions.
        assert 1 <= float(row[2].split(' ± ')[0]) <= 15
