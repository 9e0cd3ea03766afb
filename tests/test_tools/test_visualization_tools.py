"""Tools that draw pictures, on a tiny network with random weights."""
import json
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from tiny import error_of, run_tool
from visual_files import read_png, write_log, write_run

ROOT = Path(__file__).parents[2]
TOOLS = ('tsne', 'neighbours', 'transport_plan', 'similarity_map')


@pytest.fixture
def files(coco_folder, univip_scope):
    """A config and a checkpoint, with annotations."""
    return write_run(coco_folder)


def draw(files, name, *options):
    out = files[0].parent / 'pictures' / f'{name}.png'
    run_tool(f'visualization/{name}', *files, '--out', out, *options)
    return matplotlib.image.imread(out)


@pytest.mark.parametrize('name, options, size, summary', [
    ('tsne', ['--number', '10'], (1000, 1400),
     '10 objects, perplexity 3'),
    ('tsne', ['--what', 'images', '--branch', 'target'], (1000, 1400),
     '8 images'),
    ('neighbours', ['--queries', '3', '--top-k', '4'], (96 + 3 * 172 + 8,
                                                        760),
     '3 queries among 12 objects'),
    ('neighbours', ['--what', 'images', '--queries', '2'],
     (96 + 2 * 172 + 8, 18 + 134 + 26 + 7 * 134 + 18), '2 queries among 8'),
    ('transport_plan', ['--number', '2'], (76 + 2 * 496, None),
     '2 images with 8 instances'),
    ('similarity_map', ['--number', '2', '--scene-size', '64'], (None, None),
     '2 scenes of 64 pixels'),
])
def test_tool_writes_picture_of_stated_size(files, capsys, name, options,
                                            size, summary):
    picture = draw(files, name, *options)
    for found, expected in zip(picture.shape, size):
        assert expected in (None, found)
    assert picture[..., :3].std() > 0.05
    assert summary in capsys.readouterr().out


@pytest.mark.parametrize('name', TOOLS)
def test_same_seed_gives_same_picture(files, name):
    options = ['--number', '9'] if name in TOOLS[:2] else ['--number', '1']
    first, again = (draw(files, name, *options) for _ in range(2))
    assert np.array_equal(first, again)


@pytest.mark.parametrize('name', TOOLS)
def test_wrong_inputs_give_one_line_errors(files, name):
    config, checkpoint = files
    tool = f'visualization/{name}'
    out = ('--out', config.parent / 'x.png')
    assert "no config 'no.py'" in error_of(tool, 'no.py', checkpoint, *out)
    assert "no checkpoint 'no.pth'" in error_of(tool, config, 'no.pth', *out)
    assert 'must end in .png' in error_of(
        tool, config, checkpoint, '--out', 'x.jpg')
    assert '--number is 0' in error_of(
        tool, config, checkpoint, *out, '--number', 0)
    assert 'weights do not fit, the first backbone.bn1.bias' in error_of(
        tool, config, checkpoint, *out, '--cfg-options',
        'model.backbone.stem_channels=16')


def test_json_without_annotations_is_reported(files):
    config, checkpoint = files
    path = config.parent / 'train.json'
    images = json.loads(path.read_text())['images']
    path.write_text(json.dumps(dict(images=images)))
    for name in ('tsne', 'neighbours'):
        message = error_of(f'visualization/{name}', config, checkpoint,
                           '--out', config.parent / 'x.png')
        assert 'no annotated object' in message
        assert 'give --what images' in message
        picture = draw(files, name, '--what', 'images')
        assert picture[..., :3].std() > 0.05


@pytest.mark.parametrize('name, options, message', [
    ('tsne', ['--number', '4'], 'there are 4 objects'),
    ('tsne', ['--perplexity', '0'], '--perplexity is 0'),
    ('neighbours', ['--top-k', '0'], '--top-k is 0'),
    ('neighbours', ['--number', '1'], 'are from one image'),
    ('similarity_map', ['--scene-size', '8'], '--scene-size is 8'),
])
def test_options_out_of_range_are_reported(files, name, options, message):
    assert message in error_of(f'visualization/{name}', *files, '--out',
                               files[0].parent / 'x.png', *options)


def test_unreadable_image_is_named(files):
    (files[0].parent / 'images' / '3.jpg').write_bytes(b'no image')
    message = error_of('visualization/tsne', *files, '--out',
                       files[0].parent / 'x.png')
    assert str(files[0].parent / 'images' / '3.jpg') in message


@pytest.mark.parametrize('options', [['--no-augment'], [],
                                     ['--augment', '--image-size', '300']])
def test_browse_dataset_draws_samples(coco_folder, options, capsys):
    run_tool(
        'browse_dataset',
        ROOT / 'configs' / 'univip_r18_coco.py', '--output-dir',
        coco_folder / 'out', '--show-number', '5', *options, '--cfg-options',
        f'train_dataloader.dataset.data_root={coco_folder}',
        'train_dataloader.dataset.ann_file=train.json',
        'train_dataloader.dataset.proposal_file=train.npz',
        'train_dataloader.dataset.data_prefix.img_path=images')
    output = capsys.readouterr().out
    assert '5 images of 8' in output and 'of 20 instances' in output
    for number in (1, 2):
        path = coco_folder / 'out' / f'scenes_{number:03}.png'
        assert str(path) in output and path.is_file()
    four, one = (read_png(coco_folder / 'out' / f'scenes_00{n}.png').shape
                 for n in (1, 2))
    assert four[0] > 3 * one[0] and four[1] == one[1]


def test_browse_dataset_names_a_missing_config():
    assert "no config 'no.py'" in error_of('browse_dataset', 'no.py')


def test_plot_losses_writes_into_work_dir(tmp_path, capsys):
    write_log(tmp_path, '20260101_000000', [1, 2, 3])
    run_tool('plot_losses', tmp_path)
    assert (tmp_path / 'losses.png').is_file()
    assert str(tmp_path / 'losses.png') in capsys.readouterr().out
    assert error_of('plot_losses', tmp_path / 'nothing').startswith(
        'error: no training log')
