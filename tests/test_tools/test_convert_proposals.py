import json
import pickle
import re

import numpy as np
import pytest
from tiny import ROOT, error_of, run_tool

from univip_mm.proposals import ProposalFile


def test_convert_reports_dropped_boxes(coco_folder, capsys):
    source = coco_folder / 'orl.json'
    source.write_text(json.dumps(dict(
        bbox=[[[0, 0, 100, 100], [150, 100, 90, 90], [0, 0, 0, 5]]] * 8)))
    run_tool('convert_proposals', 'orl', source, '--ann-file',
             coco_folder / 'train.json', '--out', coco_folder / 'own.npz',
             '--min-size', '40')
    captured = capsys.readouterr()
    assert 'read 24 boxes of 8 images' in captured.out
    assert 'dropped: 0 not finite, 8 empty, 0 outside' in captured.out
    assert 'border: 8' in captured.out and '8/8' in captured.err
    proposals = ProposalFile(coco_folder / 'own.npz')
    assert proposals[30].tolist() == [[0, 0, 100, 100], [150, 100, 200, 160]]
    assert proposals.meta['rules']['min_size'] == 40


@pytest.mark.parametrize('source_format, message', [
    ('pickle', 'convert a file that you trust to COCO results, as in page'),
    ('xml', "unknown format 'xml': choose one of orl, coco")])
def test_other_formats_name_the_cure(coco_folder, source_format, message):
    assert message in error_of(
        'convert_proposals', source_format, coco_folder / 'boxes.pkl',
        '--ann-file', coco_folder / 'train.json', '--out',
        coco_folder / 'own.npz')


def test_documented_conversion_of_a_pickle(coco_folder, monkeypatch):
    page = (ROOT / 'docs/proposals.md').read_text()
    code, = re.findall(r'```python\n(import json, pickle\n.*?)```', page,
                       re.DOTALL)
    names = [f'{i}.jpg' for i in range(1, 9)]
    boxes = np.array([[0, 0, 100, 100], [150, 90, 50, 70], [9, 9, 70, 80]])
    (coco_folder / 'boxes.pkl').write_bytes(pickle.dumps(dict(
        bbox={name: boxes for name in reversed(names)})))
    monkeypatch.chdir(coco_folder)
    exec(code, {})
    run_tool('convert_proposals', 'coco', 'results.json', '--ann-file',
             'train.json', '--out', 'own.npz', '--min-size', '40')
    proposals = ProposalFile(coco_folder / 'own.npz')
    for image_id in proposals:  # the order is kept
        assert proposals[image_id].tolist() == [
            [0, 0, 100, 100], [150, 90, 200, 160]]


@pytest.mark.parametrize('text, message', [
    ('{"bbox": [[]]}', 'of 1 images.* lists 8'), ('{"bbox": [', 'truncated')])
def test_user_errors_are_one_line(coco_folder, text, message):
    (coco_folder / 'orl.json').write_text(text)
    assert re.search(message, error_of(
        'convert_proposals', 'orl', coco_folder / 'orl.json', '--ann-file',
        coco_folder / 'train.json', '--out', coco_folder / 'own.npz'))
    assert not (coco_folder / 'own.npz').exists()
