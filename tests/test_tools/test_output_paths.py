"""Each tool reports a wrong output path in one line, before any work."""
from pathlib import Path

import pytest
from tiny import error_of, write_config

from experiments.byol_comparison.__main__ import main as byol_comparison

DRAWING = [f'visualization/{name}' for name in (
    'neighbours', 'similarity_map', 'transport_plan', 'tsne')]


def commands(config, data, out):
    """Return the tool, the arguments and the option of each command."""
    return {
        'train': ([config, '--work-dir', out], 'work_dir'),
        'test': ([config, '--work-dir', out], 'work_dir'),
        'test --out': (
            [config, '--work-dir', data / 'log', '--out', f'{out}.json'],
            '--out'),
        'browse_dataset': ([config, '--output-dir', out], '--output-dir'),
        'plot_losses': (['missing', '--out', f'{out}.png'], '--out'),
        'extract_backbone': (['missing.pth', out], 'the backbone'),
        'export': (['missing.pth', '--out', out], 'the backbone'),
        'embed': (['missing.pth', 'missing', '--out', f'{out}.npz'],
                  'the features'),
        'cache_pixels': (
            ['--ann-file', data / 'train.json', '--img-prefix',
             data / 'images', '--out', out], '--out'),
        'convert_proposals': (
            ['orl', 'missing', '--ann-file', 'missing', '--out',
             f'{out}.npz'], '--out'),
        'inspect_proposals': (
            [data / 'train.npz', '--output-dir', out], '--output-dir'),
        'demo/run_demo': (['--work-dir', out], '--work-dir'),
        'demo/make_data': ([out, '--num-train', '1'], ''),
        'benchmarks/proposals': (['--out', out], '--out'),
        'benchmarks/speed': (['--work-dir', out], '--work-dir'),
        **{name: ([config, 'missing.pth', '--out', f'{out}.png'], '--out')
           for name in DRAWING}}


@pytest.mark.parametrize('name', commands(Path(), Path(), Path()))
@pytest.mark.parametrize('out', ['file/below', 'x' * 300])
def test_tool_reports_a_wrong_output_path(coco_folder, univip_scope, name,
                                          out):
    (coco_folder / 'file').write_text('')
    path = coco_folder / out
    arguments, option = commands(write_config(coco_folder), coco_folder,
                                 path)[name]
    message = error_of(name.split()[0], *arguments)
    assert option in message and str(path) in message


@pytest.mark.parametrize('arguments, option', [
    (['run', '--results'], '--results'), (['run', '--work-dir'], '--work-dir'),
    (['sweep', 'univip', '--results'], '--results'),
    (['figures', 'results'], 'the figure')])
def test_experiment_reports_a_wrong_output_path(
        tmp_path, monkeypatch, arguments, option):
    (tmp_path / 'file').write_text('')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=f'cannot write {option}'):
        byol_comparison([*arguments, 'file/below'])


def test_metrics_must_have_a_known_format(coco_folder):
    message = error_of('test', write_config(coco_folder), '--out', 'x.txt')
    assert "--out is 'x.txt': it must end in .json" in message
