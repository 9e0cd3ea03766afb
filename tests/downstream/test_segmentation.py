"""Test that fine-tunes FCN on masks made from COCO annotations."""
import re
from pathlib import Path

import numpy as np
import pytest
from benchmark_runs import (
    BENCHMARKS,
    assert_loss_falls,
    assert_starts_from,
    bash,
)
from PIL import Image
from pycocotools.coco import COCO

pytestmark = pytest.mark.timeout(900)
ITERATIONS = 24

CONFIG = '''
_base_ = {base!r}
custom_imports = dict(imports=['benchmark_runs'], allow_failed_imports=False)
custom_hooks = [dict(type='WatchBenchmark')]
randomness = dict(seed=0)
data_preprocessor = dict(size=(128, 128))
model = dict(
    data_preprocessor=data_preprocessor,
    backbone=dict(depth=18),
    decode_head=dict(in_channels=512, channels=64, num_classes={number}),
    auxiliary_head=dict(in_channels=256, channels=64, num_classes={number}))
data = dict(
    type='BaseSegDataset',
    metainfo=dict(classes={classes!r}, palette={palette!r}),
    data_prefix=dict(img_path={images!r}, seg_map_path={masks!r}),
    ann_file={list!r})
train_dataloader = dict(
    batch_size=4, num_workers=0, persistent_workers=False,
    dataset=dict(data, _delete_=True, pipeline=[
        dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
        dict(type='Resize', scale=(192, 192), keep_ratio=True),
        dict(type='RandomCrop', crop_size=(128, 128)),
        dict(type='RandomFlip', prob=0.5), dict(type='PackSegInputs')]))
val_dataloader = dict(
    num_workers=0, persistent_workers=False,
    dataset=dict(data, _delete_=True, indices=8, pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(192, 192), keep_ratio=True),
        dict(type='LoadAnnotations'), dict(type='PackSegInputs')]))
test_dataloader = val_dataloader
train_cfg = dict(max_iters={iterations}, val_interval={iterations})
default_hooks = dict(
    checkpoint=dict(interval={iterations}), logger=dict(interval=8))
'''


@pytest.fixture(scope='module')
def masks(tmp_path_factory, data):
    """Write a PNG per image: 0 is background, then the classes in order."""
    folder = tmp_path_factory.mktemp('masks')
    coco = COCO(data['ann_file'])
    numbers = {x: i + 1 for i, x in enumerate(sorted(coco.cats))}
    names = []
    for image in coco.imgs.values():
        mask = np.zeros((image['height'], image['width']), np.uint8)
        for annotation in coco.imgToAnns[image['id']]:
            if not annotation.get('iscrowd'):
                mask[coco.annToMask(annotation) > 0] = numbers[
                    annotation['category_id']]
        names.append(Path(image['file_name']).stem)
        Image.fromarray(mask).save(folder / f'{names[-1]}.png')
    (folder / 'list.txt').write_text('\n'.join(names))
    return folder


def test_fcn_in_one_process_of_torchrun(tmp_path, data, masks, univip18):
    classes = ['background', *data['classes']]
    config = tmp_path / 'config.py'
    config.write_text(CONFIG.format(
        base=str(BENCHMARKS / 'mmsegmentation' /
                 'fcn_r50-d8_20k_voc12aug-512x512.py'),
        number=len(classes), classes=classes,
        palette=[[i, i, i] for i in range(len(classes))],
        images=data['images'], masks=f'{masks}/', list=f'{masks}/list.txt',
        iterations=ITERATIONS))
    out = tmp_path / 'out'
    ended = bash('mmseg', 'dist_train', config, univip18, 1, '--work-dir',
                 out)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert_starts_from(out, univip18)
    assert_loss_falls(out, ITERATIONS)
    trained = re.findall(r'mIoU: ([\d.]+)', ended.stdout)[-1]

    ended = bash('mmseg', 'dist_test', config, out / f'iter_{ITERATIONS}.pth',
                 0, '--work-dir', tmp_path / 'test')
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert re.findall(r'mIoU: ([\d.]+)', ended.stdout)[-1] == trained
