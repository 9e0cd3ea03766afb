import pytest

from univip_mm.io.coco_annotations import read_annotations, read_categories

CATEGORIES = [dict(id=7, name='cat'), dict(id=2, name='dog')]


def read(*annotations, **options):
    """Return the annotations of an image with the id 1, and the remarks."""
    lines = []
    content = dict(images=[dict(id=1, file_name='a')],
                   annotations=[dict(dict(image_id=1), **x)
                                for x in annotations])
    return read_annotations(content, 'a.json', report=lines.append,
                            **options), lines


def box(*numbers, **fields):
    return dict(bbox=list(numbers), **fields)


@pytest.mark.parametrize('content', [{}, dict(annotations=None)])
def test_missing_annotations_are_an_empty_list(content):
    assert read_annotations(dict(images=[], **content), 'a') == []


@pytest.mark.parametrize('value', ['1', 1.0])
def test_text_and_float_ids_are_converted(value):
    kept, lines = read(dict(image_id=value, category_id=value),
                       categories={1: 'cat'})
    assert kept == [dict(image_id=1, category_id=1)]
    assert {type(x) for x in kept[0].values()} == {int}
    assert len(lines) == 2 and "1 annotations whose image_id" in lines[0]


def test_annotations_of_other_images_are_counted():
    kept, lines = read(dict(image_id=2), dict(image_id='3'), dict(id=5))
    assert [x.get('id') for x in kept] == [5]
    assert '2 annotations of images that are not listed' in ' '.join(lines)


def test_invalid_boxes_do_not_matter_without_boxes():
    kept, lines = read(dict(bbox='abc', iscrowd='maybe'))
    assert len(kept) == 1 and lines == []


def test_annotations_without_a_box_are_counted():
    kept, lines = read({}, dict(bbox=None), box(), box(0, 0, 5, 5),
                       boxes=True)
    assert [x['bbox'] for x in kept] == [[0, 0, 5, 5]]
    assert '3 annotations without a bbox' in lines[0]


def test_boxes_without_area_are_kept_and_counted():
    kept, lines = read(box(0, 0, 0, 5), box(0, 0, 5, -5), boxes=True)
    assert len(kept) == 2 and '2 annotations whose bbox has no' in lines[0]


@pytest.mark.parametrize('value, crowd', [
    ('0', 0), ('1', 1), (None, 0), (False, 0), (True, 1), (1.0, 1)])
def test_iscrowd_has_the_meaning_of_its_text(value, crowd):
    kept, _ = read(box(0, 0, 5, 5, iscrowd=value), boxes=True)
    assert bool(kept[0]['iscrowd']) == bool(crowd)


@pytest.mark.parametrize('annotation, reason', [
    (dict(image_id=None), 'image_id is None'),
    (dict(image_id=True), 'image_id is True'),
    (dict(image_id='a' * 10**5), 'image_id is'),
    (dict(category_id=[]), r'category_id is \[\]'),
    ({}, "no 'category_id'"),
    (dict(category_id=2, bbox=[1, 2, 3]), r'bbox is \[1, 2, 3\]'),
    (dict(category_id=2, bbox=[1, 2, 3, 4, 5]), 'bbox is'),
    (dict(category_id=2, bbox=[1, 2, float('nan'), 4]), 'bbox is'),
    (dict(category_id=2, bbox=[1, 2, 3, float('inf')]), 'bbox is'),
    (dict(category_id=2, bbox=[1, 2, 3, 10**400]), 'bbox is'),
    (dict(category_id=2, bbox=['1', '2', '3', '4']), 'bbox is'),
    (dict(category_id=2, bbox=7), 'bbox is 7'),
    (dict(category_id=2, bbox=[1, 2, 3, 4], iscrowd='maybe'), 'iscrowd is'),
    (dict(category_id=2, bbox=[1, 2, 3, 4], iscrowd=[1]), 'unhashable')])
def test_invalid_field_is_refused_with_its_place(annotation, reason):
    with pytest.raises(ValueError, match=reason) as e:
        read(dict(category_id=7, bbox=[0, 0, 1, 1]), dict(annotation, id=5),
             categories={2: 'cat', 7: 'dog'}, boxes=True)
    message = str(e.value)
    assert "annotation 1 of 'a.json'" in message and "'id': 5" in message
    assert '\n' not in message and len(message) < 400


@pytest.mark.parametrize('annotations, reason', [
    ('abc', 'must be a list'), ([7], 'is 7, but must be an object'),
    ([dict(image_id=1, category_id=3)], r'the categories \[3\]')])
def test_other_annotations_are_refused(annotations, reason):
    content = dict(images=[dict(id=1)], annotations=annotations)
    with pytest.raises(ValueError, match=reason):
        read_annotations(content, 'a.json', {2: 'cat'})


def test_categories_are_names_by_id():
    names = read_categories(dict(categories=CATEGORIES), 'a.json')
    assert names == {7: 'cat', 2: 'dog'}
    assert read_categories(dict(
        categories=[dict(id='7', name='cat')]), 'a') == {7: 'cat'}


@pytest.mark.parametrize('categories, reason', [
    (None, "no list 'categories'"), ({}, "no list 'categories'"),
    ([7], "entry 0 of 'categories' in 'a.json' is 7"),
    ([dict(id=1)], "'name'"), ([dict(id='x', name='cat')], "'id'"),
    ([*CATEGORIES, dict(id='7', name='cow')], 'entry 2 .*no other category')])
def test_invalid_categories_are_refused(categories, reason):
    with pytest.raises(ValueError, match=reason):
        read_categories(dict(categories=categories), 'a.json')
