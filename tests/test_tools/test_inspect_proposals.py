import json

import matplotlib.image
import pytest
from tiny import error_of, run_tool

from univip_mm.proposals import ProposalFile, write_proposals


def test_inspect_prints_and_draws(coco_folder, capsys):
    path = coco_folder / 'train.json'
    content = json.loads(path.read_text())
    content['annotations'] = [
        dict(image_id=10, bbox=[0, 0, 70, 70], iscrowd='0'),
        dict(image_id='80', bbox=[0, 0, 70, 70]),
        dict(image_id=80, bbox=None), dict(image_id=80)]
    path.write_text(json.dumps(content))
    run_tool('inspect_proposals', coco_folder / 'train.npz', '--ann-file',
             path, '--img-prefix', coco_folder / 'images', '-n', '4')
    output = capsys.readouterr().out
    assert 'min_size=64, max_aspect_ratio=3.0, iou_thr=0.5' in output
    assert '1 images (12.5%) have fewer than 4' in output
    assert 'of 2 annotated boxes: 0.500 at IoU 0.5, 0.500 at IoU 0.7' in output
    folder = coco_folder / 'train.inspect'
    shape = matplotlib.image.imread(folder / 'histograms.png').shape
    assert shape[:2] == (520, 1800)
    sheet = matplotlib.image.imread(folder / 'samples.png')
    assert sheet.shape[1] == 3 * 660 and sheet.std() > 0.1


def test_inspect_names_an_invalid_annotation(coco_folder):
    path = coco_folder / 'train.json'
    path.write_text(json.dumps(dict(
        json.loads(path.read_text()),
        annotations=[dict(image_id=10, bbox=[0, 0, 7])])))
    assert r"annotation 0 of '" in error_of(
        'inspect_proposals', coco_folder / 'train.npz', '--ann-file', path)


def test_inspect_does_not_draw_unreadable_images(coco_folder):
    path = coco_folder / 'train.npz'
    proposals = ProposalFile(path)
    write_proposals(path, proposals, dict(unreadable=[20, 80]))
    for name in ('2.jpg', '8.jpg'):
        (coco_folder / 'images' / name).write_text('no image')
    run_tool('inspect_proposals', path, '--ann-file',
             coco_folder / 'train.json', '--img-prefix',
             coco_folder / 'images')
    assert (coco_folder / 'train.inspect' / 'samples.png').is_file()


def test_inspect_accepts_file_without_boxes(tmp_path, capsys):
    write_proposals(tmp_path / 'a.npz', {1: []}, {})
    run_tool('inspect_proposals', tmp_path / 'a.npz')
    assert '1 images (100.0%)' in capsys.readouterr().out
    assert (tmp_path / 'a.inspect' / 'histograms.png').is_file()


@pytest.mark.parametrize('args, message', [
    (['none.npz'], 'no proposal file'),
    (['train.json'], 'not a proposal file'),
    (['train.npz', '--ann-file', 'none.json'], 'no annotation file')])
def test_user_errors_are_one_line(
        coco_folder, monkeypatch, args, message):
    monkeypatch.chdir(coco_folder)
    assert message in error_of('inspect_proposals', *args)
