import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import ROOT, load_tool, run_tool

quality = load_tool('benchmarks/quality')
MEASURES = load_tool('benchmarks/quality_report').MEASURES


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('quality')


def command(folder, *options):
    return [
        '--data-dir', folder / 'data', '--results', folder / 'results',
        '--work-dir', folder / 'runs', '--num-train', 16, '--num-val', 8,
        '--seeds', 5, '--epochs', 3, '--name', 'tiny', '--cfg-options',
        'train_dataloader.batch_size=4', *options
    ]


def run(folder, *options):
    return subprocess.run(
        [sys.executable, '-W', 'ignore', ROOT / 'experiments/byol_comparison/run.py',
         *map(str, command(folder, *options))], capture_output=True,
        text=True, cwd=ROOT)


def result(folder, arm):
    path = folder / f'results/{arm}-tiny-seed5.json'
    return json.loads(path.read_text()), path.stat().st_mtime_ns


@pytest.fixture(scope='module')
def first(folder):
    """What is said where two arms are trained, each in a process."""
    said = run(folder, '--arms', 'random', 'univip', '--jobs', 2)
    assert said.returncode == 0, said.stderr
    return said.stdout


def test_units_are_trained_and_measured(folder, first):
    for arm in ('random', 'univip'):
        measured, _ = result(folder, arm)
        assert measured['seed'] == 5 and measured['num_train'] == 16
        for key in MEASURES:
            assert 0 <= measured[key] <= 100
    losses = result(folder, 'univip')[0]['curve'][0]
    assert {'loss', 'loss_scene', 'loss_instance'} <= losses.keys()
    assert '| univip-tiny | 1 |' in first


def test_what_is_done_is_not_done_again(folder, first):
    before = result(folder, 'univip')
    said = run(folder, '--arms', 'random', 'univip')
    assert '2 units, 2 of them done' in said.stdout
    assert result(folder, 'univip') == before


def test_a_result_of_other_settings_does_not_pass_for_another(folder, first):
    before = result(folder, 'univip')
    for options, words in (
            (['optim_wrapper.optimizer.lr=5.0', '--arms', 'univip'],
             'is of other settings (options'),
            (['--arms', 'univip', '--bf16'],
             'is of other settings (bf16 False, not True)')):
        said = run(folder, *options)
        assert said.returncode == 1 and words in said.stderr
    assert result(folder, 'univip') == before


def test_a_small_result_does_not_pass_for_a_large_one(folder, first):
    args = quality_args(folder)
    path = quality.result_path(args, 'univip', 5)
    quality.check_result(args, path)
    args.large = True
    with pytest.raises(ValueError, match='large False, not True'):
        quality.check_result(args, path)


def test_no_scenes_are_not_the_default_number(folder):
    said = run(folder, '--num-train', 0, '--data-dir', folder / 'none')
    assert said.returncode == 1 and 'error: ' in said.stderr
    assert not (folder / 'none').exists()


def test_networks_that_are_not_there_are_told_with_the_cure(folder, first):
    for option in (['--ranks'], ['--neighbours', folder / 'none.png']):
        said = run(folder, *option, '--seeds', 77)
        assert said.returncode == 1 and 'Traceback' not in said.stderr
        assert 'has no network of arms' in said.stderr
        assert 'seeds 77: train them first, or give' in said.stderr


def test_a_run_of_other_settings_is_not_gone_on_with(folder, first):
    said = run(folder, '--arms', 'univip', '--results', folder / 'others',
               '--bf16')
    assert 'these units failed: univip, seed 5' in said.stderr
    log = (folder / 'runs/univip-tiny-seed5.log').read_text()
    assert 'is of a run with other settings: give another' in log
    assert not list((folder / 'others').glob('*.json'))


def test_scenes_of_another_number_are_not_drawn_over(folder, first):
    said = run(folder, '--arms', 'byol', '--num-train', 32)
    assert said.returncode == 1
    assert "data' has 16 images to train on, not 32: give another" in \
        said.stderr


def quality_args(folder, *options):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            sys, 'argv', ['quality.py', *map(str, command(folder, *options))])
        return quality.parse_args()


@pytest.mark.parametrize('arm', [
    x for x in quality.ARMS if x not in ('random', 'supervised')])
def test_every_arm_computes_its_own_terms(folder, first, arm):
    cfg = quality.load_config(quality_args(folder), arm, 5)
    views = cfg.train_dataloader.dataset.pipeline[1].type
    assert views == ('MultiView' if arm == 'byol' else 'OverlapSceneCrop')
    assert cfg.model.type == ('BYOL' if 'byol' in arm else 'UniVIP')
    # The host's BYOL has twice the loss for the same agreement.
    assert cfg.optim_wrapper.optimizer.lr == (
        0.1 if 'byol' in arm else 0.2)
    weights = cfg.model.get('loss_weights', {})
    assert [weights.get(x) for x in ('scene_instance', 'instance')] == dict(
        byol=[None, None], byol_overlap=[None, None],
        scene_instance=[1, 0], instance_instance=[0, 1]).get(arm, [1, 1])
    file = cfg.train_dataloader.dataset.proposal_file
    assert ('none' in file) == (arm == 'univip_random_boxes')


@pytest.mark.parametrize('arm', ['byol', 'byol_overlap', 'univip'])
def test_large_views_go_to_a_large_network(folder, arm):
    cfg = quality.load_config(quality_args(folder, '--large'), arm, 5)
    step = cfg.train_dataloader.dataset.pipeline[1]
    if arm == 'byol':
        assert step.transforms[0][0].scale == 128
    else:
        assert (step.scene_size, step.instance_size) == (128, 64)
    model = quality.build_model(cfg)
    assert model.backbone.layer4[-1].conv2.out_channels == 512
    assert model.data_preprocessor.scene2.blur_kernel == 9
    assert model.neck.fc0.in_features == 512
    assert cfg.auto_scale_lr == dict(base_batch_size=64, enable=True)
    # Set by the options.
    assert cfg.train_dataloader.batch_size == 4
    assert cfg.train_cfg.max_epochs == cfg.param_scheduler[-1].end == 3


def test_the_large_version_has_its_own_folders(monkeypatch):
    for options, data, number in (([], 'data/quality', 3000),
                                  (['--large'], 'data/quality_large', 12000)):
        monkeypatch.setattr(sys, 'argv', ['quality.py', *options])
        args = quality.parse_args()
        assert (args.data_dir, args.num_train) == (data, number)
        assert args.results == f'work_dirs/{Path(data).name}/results'
        assert args.bf16 == bool(options)


@pytest.mark.parametrize('options, data', [
    ([], 'data/quality'), (['--large'], 'data/quality_large')])
def test_photographs_do_not_take_the_place_of_the_scenes(
        options, data, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', [
        'quality.py', '--ann-file', 'a.json', '--img-prefix', 'images',
        '--name', 'x', *options])
    with pytest.raises(SystemExit):
        quality.parse_args()
    assert f"drawn scenes of '{data}': give another" in capsys.readouterr().err


def test_share_of_a_box_within_others():
    box = np.array([10, 10, 30, 20])
    assert quality.covered(box, np.array([[0, 0, 20, 40]])) == 0.5
    assert quality.covered(box, np.array([[0, 0, 20, 40.2],
                                          [10, 10, 15, 15]])) == 0.5
    assert quality.covered(box, np.array([[40, 0, 60, 40]])) == 0
    assert quality.covered(box, np.array([[0, 0, 99, 99]])) == 1


def test_instances_are_described(folder, first):
    lines = run(folder, '--instances').stdout.splitlines()
    assert lines[2].startswith('| UniVIP (both) | ')
    assert lines[3].startswith('| UniVIP, random boxes | ')


def test_ranks_of_the_networks_are_told(folder, first):
    lines = run(folder, '--ranks').stdout.splitlines()
    head = [i for i, x in enumerate(lines) if x.startswith('| arm | seed |')]
    rows = [x.split(' | ') for x in lines[head[0] + 2:]]
    assert [row[0] for row in rows] == ['| random initialisation',
                                        '| UniVIP (both)']
    assert all(1 <= float(rank.strip(' |')) <= 128
               for row in rows for rank in row[2:])


def test_results_are_drawn(folder, first):
    picture = folder / 'pictures/results.png'
    said = run(folder, '--report', '--plot', picture)
    assert f'picture: {picture}' in said.stdout
    with Image.open(picture) as image:
        assert image.width > 1000


def test_neighbours_are_drawn(folder, first):
    picture = folder / 'pictures/neighbours.png'
    said = run(folder, '--neighbours', picture)
    assert f'picture: {picture}' in said.stdout, said.stderr
    with Image.open(picture) as image:  # two arms have networks
        assert 600 < image.width < 700


def test_a_frame_tells_right_from_wrong():
    picture = torch.full((3, 10, 10), 7, dtype=torch.uint8)
    framed = quality.framed(picture, (0, 160, 0))
    assert framed.shape == (18, 18, 3)
    assert (framed[4:-4, 4:-4] == 7).all()
    assert framed[0, 0].tolist() == framed[-1, -1].tolist() == [0, 160, 0]


def test_three_of_four_photographs_are_trained_on(coco_folder, tmp_path):
    content = json.loads((coco_folder / 'train.json').read_text())
    ann_file, tmp_path = tmp_path / 'all.json', tmp_path / 'split'
    ann_file.write_text(json.dumps(dict(
        content, categories=[dict(id=1, name='a')],
        annotations=[dict(id=i, image_id=x['id'], bbox=[0, 0, 9, 9],
                          category_id=1)
                     for i, x in enumerate(content['images'])])))
    with pytest.raises(ValueError, match="train.json' has no 'annotations'"):
        quality.split_photographs(coco_folder / 'train.json', 'x', tmp_path)
    quality.split_photographs(ann_file, coco_folder / 'images', tmp_path)
    counts, ids = [], set()
    for split in ('train', 'val'):
        content = json.loads(
            (tmp_path / f'annotations/{split}.json').read_text())
        for image in content['images']:
            assert (tmp_path / split / image['file_name']).is_file()
        here = {x['id'] for x in content['images']}
        assert {x['image_id'] for x in content['annotations']} == here
        assert not ids & here
        ids |= here
        counts.append(len(here))
    assert counts[0] == 3 * counts[1]


@pytest.mark.parametrize('options, words', [
    (['--report', '--results', 'nowhere'], 'has no results'),
    (['--neighbours', 'x.png', '--work-dir', 'nowhere'], 'no network'),
    (['--ann-file', 'a.json', '--img-prefix', 'b'], '--name NAME'),
    (['--ann-file', 'a.json', '--name', 'b'], 'give both or none'),
    (['--ann-file', 'a.json', '--img-prefix', 'b', '--name', 'c'],
     'another --data-dir'),
    (['--cfg-options', 'a=1'], '--name NAME'),
    (['--bf16'], '--name NAME'),
    (['--skip-detection'], '--name NAME'),
    (['--epochs', '9'], '--epochs without --name'),
    (['--jobs', '0'], 'at least 1'),
    (['--epochs', '2'], 'at least 3'),
])
def test_mistakes_are_told_in_a_line(options, words, capsys):
    with pytest.raises(SystemExit) as e:
        run_tool('benchmarks/quality', *options)
    assert words in f'{e.value.code} {capsys.readouterr().err}'


def test_units_that_fail_are_named(folder, first):
    said = run(folder, 'optim_wrapper.optimizer.type=NoSuch', '--arms',
               'byol')
    assert said.returncode == 1
    assert 'these units failed: byol, seed 5' in said.stderr
