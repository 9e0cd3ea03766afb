import json
import re

import pytest
from tiny import error_of, run_tool

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


@pytest.mark.parametrize('text, message', [
    ('{"bbox": [[]]}', 'of 1 images.* lists 8'), ('{"bbox": [', 'truncated')])
def test_user_errors_are_one_line(coco_folder, text, message):
    (coco_folder / 'orl.json').write_text(text)
    assert re.search(message, error_of(
        'convert_proposals', 'orl', coco_folder / 'orl.json', '--ann-file',
        coco_folder / 'train.json', '--out', coco_folder / 'own.npz'))
    assert not (coco_folder / 'own.npz').exists()
