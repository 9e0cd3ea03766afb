import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from univip_mm.datasets import CocoMultiLabel
from univip_mm.registry import DATASETS

# Images and categories are not ordered by id. Image 20 has no annotation, and
# image 40 has two annotations of the same category.
CONTENT = dict(
    images=[
        dict(id=i, file_name=f'{i}.jpg') for i in (30, 10, 50, 20, 40)
    ],
    annotations=[
        dict(image_id=30, category_id=7),
        dict(image_id=30, category_id=2),
        dict(image_id=10, category_id=90, iscrowd=1),
        dict(image_id=40, category_id=2),
        dict(image_id=40, category_id=2),
        dict(image_id=50, category_id=90),
        dict(image_id=50, category_id=2),
    ],
    categories=[
        dict(id=90, name='toothbrush'),
        dict(id=2, name='bicycle'),
        dict(id=7, name='train'),
    ])


def write(root, name='instances.json', **changes):
    content = {**CONTENT, **changes}
    (root / name).write_text(
        json.dumps({k: v for k, v in content.items() if v is not None}))


def build(root, **changes):
    return DATASETS.build({
        **dict(
            type='univip_mm.CocoMultiLabel',
            data_root=str(root),
            ann_file='instances.json',
            data_prefix=dict(img_path='images'),
            serialize_data=False),  # slow in a long test run
        **changes
    })


def image_ids(dataset):
    return [dataset.get_data_info(i)['img_id'] for i in range(len(dataset))]


def test_sample_has_labels_and_split(tmp_path):
    write(tmp_path)
    dataset = build(tmp_path, split='val')
    assert isinstance(dataset, CocoMultiLabel)
    assert dataset.metainfo['classes'] == ('bicycle', 'train', 'toothbrush')
    samples = [dataset[i] for i in range(len(dataset))]
    assert [x['gt_label'] for x in samples] == [[2], [0, 1], [0], [0, 2]]
    assert [x['img_id'] for x in samples] == [10, 30, 40, 50]
    assert [x['img_path'] for x in samples] == [
        str(tmp_path / f'images/{i}.jpg') for i in (10, 30, 40, 50)
    ]
    assert {x['split'] for x in samples} == {'val'}


def test_img_path_defaults_to_data_root(tmp_path):
    write(tmp_path)
    info = build(tmp_path, data_prefix=None).get_data_info(0)
    assert info['img_path'] == str(tmp_path / '10.jpg')


@pytest.mark.timeout(20)
def test_pipe_raises_in_one_line(tmp_path):
    write(tmp_path)
    (tmp_path / 'images').mkdir()
    os.mkfifo(tmp_path / 'images' / '30.jpg')
    dataset = build(tmp_path, pipeline=[dict(type='LoadImageFromFile')])
    with pytest.raises(ValueError, match='30.jpg.*not a regular file.*repair'):
        dataset[1]


def test_packed_sample_has_label_and_split(tmp_path):
    from PIL import Image
    write(tmp_path)
    (tmp_path / 'images').mkdir()
    Image.new('RGB', (8, 6)).save(tmp_path / 'images' / '30.jpg')
    dataset = build(tmp_path, test_mode=True, pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='mmpretrain.PackInputs', meta_keys=('img_path', 'split')),
    ])  # yapf: disable
    sample = dataset[1]['data_samples'].to_dict()
    assert sample['gt_label'].tolist() == [0, 1]
    assert sample['split'] == 'train'
    with pytest.raises(FileNotFoundError, match='10.jpg'):
        dataset[0]


@given(number=st.integers(3, 40), cut=st.floats(0.2, 0.8))
def test_adjacent_parts_partition_the_images(tmp_path_factory,
                                                      number, cut):
    root = tmp_path_factory.getbasetemp()
    ids = range(1, number + 1)
    write(
        root,
        images=[dict(id=i, file_name=f'{i}.jpg') for i in ids],
        annotations=[dict(image_id=i, category_id=2) for i in ids])
    first = image_ids(build(root, part=(0, cut)))
    second = image_ids(build(root, part=(cut, 1)))
    assert first + second == list(ids)
    assert abs(len(first) - cut * number) <= 0.5 + 1e-9


def test_indices_select_within_part(tmp_path):
    write(tmp_path)
    assert image_ids(build(tmp_path, part=(0.5, 1), indices=1)) == [40]


def test_concat_requires_equal_classes(
        tmp_path, univip_scope):
    write(tmp_path)
    write(tmp_path, 'other.json', categories=CONTENT['categories'][::-1])
    parts = [
        dict(type='CocoMultiLabel', split=split,
             ann_file=str(tmp_path / name))
        for split, name in (('train', 'instances.json'), ('val', 'other.json'))
    ]
    joined = DATASETS.build(dict(type='ConcatDataset', datasets=parts))
    assert len(joined) == 8
    assert joined.metainfo['classes'] == ('bicycle', 'train', 'toothbrush')
    assert [joined[i]['split'] for i in (0, 3, 4, 7)
            ] == ['train', 'train', 'val', 'val']
    write(tmp_path, 'other.json',
          categories=[*CONTENT['categories'], dict(id=1, name='person')])
    with pytest.raises(ValueError, match='does not match meta information'):
        DATASETS.build(dict(type='ConcatDataset', datasets=parts))


def test_annotations_of_other_images_are_counted(tmp_path, logged):
    write(tmp_path, images=CONTENT['images'][:2])
    assert image_ids(build(tmp_path)) == [10, 30]
    assert '4 annotations of images that are not listed' in ' '.join(logged)


def test_images_without_annotation_are_counted(tmp_path, logged):
    write(tmp_path)
    build(tmp_path)
    assert 'drops 1 of 5 images' in ' '.join(logged)


def test_text_ids_keep_their_images(tmp_path, logged):
    write(tmp_path, annotations=[
        dict(image_id=str(x['image_id']), category_id=str(x['category_id']))
        for x in CONTENT['annotations']])
    dataset = build(tmp_path)
    assert image_ids(dataset) == [10, 30, 40, 50]
    assert [dataset.get_data_info(i)['gt_label'] for i in range(4)] == [
        [2], [0, 1], [0], [0, 2]]
    assert '7 annotations whose image_id' in ' '.join(logged)


def test_backslash_stands_for_a_folder(tmp_path, logged):
    write(tmp_path, images=[
        dict(x, file_name='a\\' + x['file_name']) for x in CONTENT['images']])
    info = build(tmp_path).get_data_info(0)
    assert info['img_path'] == str(tmp_path / 'images/a/10.jpg')
    assert '5 file names with a backslash' in ' '.join(logged)


@pytest.mark.parametrize('changes, message', [
    (dict(annotations=None), 'no image .* annotation: use an instances json'),
    (dict(categories=None), "no list 'categories'.*instances json"),
    (dict(categories=[dict(id=1)]), "entry 0 of 'categories'.*'name'"),
    (dict(annotations=[dict(image_id=10)]), "no 'category_id'"),
    (dict(annotations=[dict(image_id=None, category_id=2)]),
     'annotation 0 .*image_id is None'),
    (dict(annotations=[]), "no image of .*instances.json' has an annotation"),
    (dict(categories=CONTENT['categories'][:1]), r'the categories \[2, 7\]'),
    (dict(images=None), 'instances.json.* not a COCO json'),
])
def test_json_without_labels_raises(tmp_path, changes, message):
    write(tmp_path, **changes)
    with pytest.raises(ValueError, match=message) as error:
        build(tmp_path)
    assert '\n' not in str(error.value)


def test_missing_json_raises(tmp_path):
    with pytest.raises(FileNotFoundError, match="'.*nowhere.json': check"):
        build(tmp_path, ann_file='nowhere.json')


def test_non_json_file_raises(tmp_path):
    (tmp_path / 'instances.json').write_bytes(b'\xff\xd8\xff\xe0 a picture')
    with pytest.raises(ValueError, match='is not a COCO json'):
        build(tmp_path)


@pytest.mark.parametrize('option, message', [
    (dict(split='test'), "split is 'test'"),
    (dict(part=(0.5, 0.5)), 'part is'),
    (dict(part=(0, 2)), 'part is'),
    (dict(part=(0, 0.1)), r'part \(0, 0.1\) of the 4 .* has no image'),
])
def test_invalid_option_raises(tmp_path, option, message):
    write(tmp_path)
    with pytest.raises(ValueError, match=message):
        build(tmp_path, **option)
