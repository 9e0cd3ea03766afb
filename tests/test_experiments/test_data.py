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
    with pytest.raises(ValueError, match="train.json' has no 'annotations'"):
        split_photographs(coco_folder / 'train.json', 'x', tmp_path)
