"""Fixtures of the benchmark tests.

The tests need mmdet and mmseg, which `make test-downstream` installs. In other
environments, pytest collects nothing in this folder.
"""
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from benchmark_runs import ROOT, polygons_only

if find_spec('mmdet') is None or find_spec('mmseg') is None:
    collect_ignore_glob = ['test_*.py']

COCO128 = ROOT.parent / 'shared' / 'data' / 'coco128'


@pytest.fixture(scope='session')
def data(tmp_path_factory):
    """Return the paths of images and of a COCO json with polygons.

    The images are the first 128 of COCO, or else demo images.
    """
    folder = tmp_path_factory.mktemp('data')
    if COCO128.is_dir():
        images = COCO128 / 'train2017'
        source = COCO128 / 'annotations' / 'instances_train2017.json'
    else:
        from univip_mm.demo import make_scenes
        make_scenes(folder / 'demo', num_train=60, num_val=1, workers=1)
        images = folder / 'demo' / 'train'
        source = folder / 'demo' / 'annotations' / 'train.json'
    content = polygons_only(json.loads(source.read_text()))
    ann_file = folder / 'instances.json'
    ann_file.write_text(json.dumps(content))
    return dict(
        images=f'{images}/',
        ann_file=str(ann_file),
        classes=[x['name'] for x in content['categories']])


@pytest.fixture(scope='session')
def univip18(tmp_path_factory, data):
    """Return a ResNet-18 checkpoint of a short run of tools/train.py.

    The run has four iterations and uses annotated boxes as proposals.
    """
    from univip_mm.io.boxes import ProposalRules, filter_boxes
    from univip_mm.proposals import write_proposals
    folder = tmp_path_factory.mktemp('pretrain')
    content = json.loads(Path(data['ann_file']).read_text())
    images = content['images'][:16]
    (folder / 'train.json').write_text(json.dumps(dict(images=images)))
    boxes = {x['id']: [] for x in images}
    for annotation in content['annotations']:
        if annotation['image_id'] in boxes:
            x, y, width, height = annotation['bbox']
            boxes[annotation['image_id']].append(
                [x, y, x + width, y + height])
    rules = ProposalRules()
    write_proposals(
        folder / 'train.npz',
        {key: filter_boxes(np.array(value, int).reshape(-1, 4), rules)
         for key, value in boxes.items()}, dict(rules=rules.as_dict()))
    config = folder / 'config.py'
    config.write_text(f'''
_base_ = {str(ROOT / 'configs' / 'univip_r18_coco.py')!r}
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        data_root={str(folder)!r}, ann_file='train.json',
        proposal_file='train.npz',
        data_prefix=dict(img_path={data['images']!r})))
train_cfg = dict(max_epochs=1)
default_hooks = dict(checkpoint=dict(interval=1))
''')
    ended = subprocess.run(
        [sys.executable, ROOT / 'tools' / 'train.py', config, '--work-dir',
         folder / 'out'],
        text=True, capture_output=True,
        env=dict(os.environ, PYTHONPATH=str(ROOT)))
    assert ended.returncode == 0, ended.stderr[-3000:]
    return folder / 'out' / 'epoch_1.pth'
