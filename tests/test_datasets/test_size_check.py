import json
from functools import partial

import pytest

from univip_mm.datasets import ProposalCocoDataset
from univip_mm.proposals import ProposalFile, write_proposals


def build(folder, **changes):
    return ProposalCocoDataset(
        ann_file='train.json', proposal_file='train.npz',
        data_root=str(folder), data_prefix=dict(img_path='images'),
        serialize_data=False, **changes)


def change_json(folder, change):
    """Change each image of the json; the files are 200 x 160 pixels."""
    path = folder / 'train.json'
    content = json.loads(path.read_text())
    for i, image in enumerate(content['images']):
        image.update(change(i, image))
    path.write_text(json.dumps(content))


def resized(i, image, factor, first=0):
    return {} if i < first else dict(
        width=int(image['width'] * factor),
        height=int(image['height'] * factor))


@pytest.fixture
def imported(coco_folder):
    """The data set, with proposals that were imported."""
    path = coco_folder / 'train.npz'
    file = ProposalFile(path)
    write_proposals(path, dict(file), dict(rules=file.meta['rules'],
                                           method='imported from orl'))
    return coco_folder


def test_imported_boxes_need_the_sizes_of_the_files(imported):
    assert len(build(imported)) == 8
    change_json(imported, partial(resized, factor=2))
    with pytest.raises(ValueError, match='imported with .*8 of 8 files.*id 10,'
                       ' 400 x 320 in the json, 200 x 160 in the file'):
        build(imported)


def test_few_imported_images_may_have_other_sizes(imported):
    change_json(imported, partial(resized, factor=2, first=5))
    assert len(build(imported)) == 8


def test_searched_boxes_do_not_depend_on_the_json(coco_folder):
    change_json(coco_folder, partial(resized, factor=2))
    assert len(build(coco_folder)) == 8


@pytest.mark.parametrize('value', [None, 0, 'abc', -1])
def test_images_of_unknown_size_are_kept(coco_folder, logged, value):
    change_json(coco_folder, lambda i, _: dict(width=value) if i < 3 else {})
    assert len(build(coco_folder)) == 8
    text = ' '.join(logged)
    assert '3 images' in text and 'drops' not in text


def test_wrong_sizes_that_drop_images_are_reported(coco_folder, logged):
    change_json(coco_folder, partial(resized, factor=.1, first=6))
    assert len(build(coco_folder)) == 6
    text = ' '.join(logged)
    assert 'id 70, 20 x 16 in the json, 200 x 160 in the file' in text
    assert 'drops 2 of 8' in text


def test_right_sizes_that_drop_images_are_not_wrong(coco_folder, logged):
    change_json(coco_folder, lambda i, _: {})
    with pytest.raises(ValueError, match='lower min_image_size'):
        build(coco_folder, min_image_size=180)
    assert 'wrong sizes' not in ' '.join(logged)
