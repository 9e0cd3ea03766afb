import json

import pytest

from experiments.byol_comparison.data import link_photographs


def test_link_photographs_links_all(coco_folder, tmp_path):
    content = json.loads((coco_folder / 'train.json').read_text())
    ann_file, tmp_path = tmp_path / 'all.json', tmp_path / 'linked'
    ann_file.write_text(json.dumps(dict(
        content, categories=[dict(id=1, name='a')],
        annotations=[dict(id=i, image_id=x['id'], bbox=[0, 0, 9, 9],
                          category_id=1)
                     for i, x in enumerate(content['images'])])))
    link_photographs(ann_file, coco_folder / 'images', tmp_path)
    linked = json.loads((tmp_path / 'annotations/train.json').read_text())
    assert linked['images'] == content['images']
    assert len(linked['annotations']) == len(content['images'])
    for image in content['images']:
        assert (tmp_path / 'train' / image['file_name']).is_file()


def test_link_photographs_needs_objects(coco_folder, tmp_path):
    path = coco_folder / 'train.json'
    with pytest.raises(ValueError, match="train.json' has no list 'categ"):
        link_photographs(path, 'x', tmp_path)
    path.write_text(json.dumps(dict(json.loads(path.read_text()),
                                    categories=[dict(id=1, name='a')])))
    with pytest.raises(ValueError, match="train.json' has no 'annotations'"):
        link_photographs(path, 'x', tmp_path)


def test_link_photographs_converts_text_ids(coco_folder, tmp_path):
    path = coco_folder / 'train.json'
    content = json.loads(path.read_text())
    for image in content['images']:
        image['id'] = str(image['id'])
    path.write_text(json.dumps(dict(
        content, categories=[dict(id='1', name='a')], annotations=[
            dict(image_id=x['id'], bbox=[0, 0, 9, 9], category_id='1')
            for x in content['images']])))
    link_photographs(path, coco_folder / 'images', tmp_path / 'split')
    train = json.loads(
        (tmp_path / 'split/annotations/train.json').read_text())
    assert len(train['annotations']) == len(content['images'])
    assert train['categories'] == [dict(id=1, name='a')]
    assert {x['category_id'] for x in train['annotations']} == {1}
