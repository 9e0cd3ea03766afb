import json

import pytest

from experiments.byol_comparison.data import split_photographs


def test_split_photographs_takes_three_of_four(coco_folder, tmp_path):
    content = json.loads((coco_folder / 'train.json').read_text())
    ann_file, tmp_path = tmp_path / 'all.json', tmp_path / 'split'
    ann_file.write_text(json.dumps(dict(
        content, categories=[dict(id=1, name='a')],
        annotations=[dict(id=i, image_id=x['id'], bbox=[0, 0, 9, 9],
                          category_id=1)
                     for i, x in enumerate(content['images'])])))
    split_photographs(ann_file, coco_folder / 'images', tmp_path)
    counts, ids = [], set()
    for split in ('train', 'val'):
        content = json.loads(
            (tmp_path / f'annotations/{split}.json').read_text())
        for image in content['images']:
            assert (tmp_path / split / image['file_name']).is_file()
        split_ids = {x['id'] for x in content['images']}
        assert {x['image_id'] for x in content['annotations']} == split_ids
        assert not ids & split_ids
        ids |= split_ids
        counts.append(len(split_ids))
    assert counts[0] == 3 * counts[1]


def test_split_photographs_needs_objects(coco_folder, tmp_path):
    path = coco_folder / 'train.json'
    with pytest.raises(ValueError, match="train.json' has no list 'categ"):
        split_photographs(path, 'x', tmp_path)
    path.write_text(json.dumps(dict(json.loads(path.read_text()),
                                    categories=[dict(id=1, name='a')])))
    with pytest.raises(ValueError, match="train.json' has no 'annotations'"):
        split_photographs(path, 'x', tmp_path)


def test_split_photographs_converts_text_ids(coco_folder, tmp_path):
    path = coco_folder / 'train.json'
    content = json.loads(path.read_text())
    for image in content['images']:
        image['id'] = str(image['id'])
    path.write_text(json.dumps(dict(
        content, categories=[dict(id='1', name='a')], annotations=[
            dict(image_id=x['id'], bbox=[0, 0, 9, 9], category_id='1')
            for x in content['images']])))
    split_photographs(path, coco_folder / 'images', tmp_path / 'split')
    train, val = (json.loads((tmp_path / f'split/annotations/{x}.json')
                             .read_text()) for x in ('train', 'val'))
    assert len(train['annotations']) == 6 and len(val['annotations']) == 2
    assert train['categories'] == [dict(id=1, name='a')]
    assert {x['category_id'] for x in train['annotations']} == {1}
