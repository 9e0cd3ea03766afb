import numpy as np
import pytest
from PIL import Image

from univip_mm.io.boxes import ProposalRules, filter_boxes
from univip_mm.io.coco_json import read_coco
from univip_mm.proposals import (
    ProposalFile,
    Search,
    generate_proposals,
    selective_search,
)

SEARCH = Search(rules=ProposalRules(min_size=30))


@pytest.fixture
def images(coco_folder):
    return read_coco(coco_folder / 'train.json')['images']


def test_file_holds_the_filtered_boxes_of_each_image(coco_folder, images):
    import cv2
    out = coco_folder / 'new' / 'out.npz'
    generate_proposals(images, coco_folder / 'images', out, SEARCH,
                       source='train.json', workers=2)
    proposals = ProposalFile(out)
    assert list(proposals) == [image['id'] for image in images]
    for image in images:
        pixels = cv2.imread(str(coco_folder / 'images' / image['file_name']))
        expected = filter_boxes(selective_search(pixels), SEARCH.rules)
        assert np.array_equal(proposals[image['id']], expected)
    assert sum(proposals.counts()) > 0
    assert proposals.meta['rules'] == dict(
        min_size=30, max_aspect_ratio=3.0, iou_thr=0.5)
    assert proposals.meta['method'] == 'selective search, fast'
    assert proposals.meta['source'] == 'train.json'


def test_result_does_not_depend_on_the_workers(coco_folder, images):
    for workers in (1, 2, 3):
        generate_proposals(images, coco_folder / 'images',
                           coco_folder / f'{workers}.npz', SEARCH,
                           workers=workers)
    one, two, three = ((coco_folder / f'{n}.npz').read_bytes()
                       for n in (1, 2, 3))
    assert one == two == three


def generate(folder, images, name='out.npz', search=SEARCH, workers=1):
    return generate_proposals(images, folder / 'images', folder / name,
                              search, workers=workers)


class Interrupted(Exception):
    pass


def test_interrupted_search_goes_on_and_redoes_no_image(
        coco_folder, images, monkeypatch):
    generate(coco_folder, images, 'undisturbed.npz')
    searched = []

    def count(image, method):
        if len(searched) in (3, 6):
            searched.append(None)
            raise Interrupted
        searched.append(image)
        return selective_search(image, method)

    monkeypatch.setattr(
        'univip_mm.proposals.generate.selective_search', count)
    for _ in range(2):
        with pytest.raises(Interrupted):
            generate(coco_folder, images)
        assert not (coco_folder / 'out.npz').exists()
    outcome = generate(coco_folder, images)
    assert len([x for x in searched if x is not None]) == len(images)
    assert (outcome.searched, outcome.found_before) == (3, 5)
    assert (coco_folder / 'out.npz').read_bytes() == (
        coco_folder / 'undisturbed.npz').read_bytes()
    assert not (coco_folder / 'out.npz.parts').exists()


def test_finished_file_is_left_as_it_is(coco_folder, images, monkeypatch):
    generate(coco_folder, images)
    monkeypatch.setattr('univip_mm.proposals.generate.selective_search', None)
    before = (coco_folder / 'out.npz').stat()
    outcome = generate(coco_folder, images)
    assert (outcome.searched, outcome.found_before) == (0, 8)
    after = (coco_folder / 'out.npz').stat()
    assert (after.st_ino, after.st_mtime_ns) == (
        before.st_ino, before.st_mtime_ns)
    assert not (coco_folder / 'out.npz.parts').exists()


def test_images_that_were_mended_are_searched_alone(coco_folder, images):
    path = coco_folder / 'images' / '3.jpg'
    whole = path.read_bytes()
    generate(coco_folder, images, 'undisturbed.npz')
    path.write_bytes(b'')
    assert set(generate(coco_folder, images).unreadable) == {'3.jpg'}
    path.write_bytes(whole)
    outcome = generate(coco_folder, images)
    assert (outcome.searched, outcome.unreadable) == (1, {})
    assert (coco_folder / 'out.npz').read_bytes() == (
        coco_folder / 'undisturbed.npz').read_bytes()


def test_image_mended_before_the_search_goes_on_is_searched(
        coco_folder, images, monkeypatch):
    path = coco_folder / 'images' / '1.jpg'
    whole = path.read_bytes()
    path.write_bytes(b'')
    monkeypatch.setattr('univip_mm.proposals.generate.selective_search', None)
    with pytest.raises(TypeError):
        generate(coco_folder, images)
    monkeypatch.undo()
    path.write_bytes(whole)
    outcome = generate(coco_folder, images)
    assert (outcome.searched, outcome.unreadable) == (8, {})


def test_file_of_other_images_or_another_search_is_made_anew(
        coco_folder, images):
    generate(coco_folder, images[:5])
    assert generate(coco_folder, images).searched == 8
    other = Search(rules=ProposalRules(min_size=40))
    assert generate(coco_folder, images, search=other).searched == 8
    assert ProposalFile(coco_folder / 'out.npz').meta['rules'][
        'min_size'] == 40


def test_unfinished_search_with_other_options_is_told(
        coco_folder, images, monkeypatch):
    monkeypatch.setattr('univip_mm.proposals.generate.selective_search', None)
    with pytest.raises(TypeError):
        generate(coco_folder, images)
    with pytest.raises(ValueError, match='top_n=None, but now it is 5'):
        generate(coco_folder, images, search=Search(
            rules=SEARCH.rules, top_n=5))


def test_what_the_journal_lost_is_told_and_searched_again(
        coco_folder, images, monkeypatch):
    from univip_mm.proposals.journal import Journal
    write = Journal.write
    monkeypatch.setattr(
        Journal, 'write', lambda self, image_id, *rest:
        image_id == 30 or write(self, image_id, *rest))
    with pytest.raises(ValueError, match='in 1 images: repeat the command'):
        generate(coco_folder, images)
    monkeypatch.undo()
    assert generate(coco_folder, images).searched == 1


def test_fault_of_the_search_is_that_of_its_image(
        coco_folder, images, monkeypatch):
    import cv2

    def fail(image, method):
        raise cv2.error('no memory')

    generate(coco_folder, images[1:])
    monkeypatch.setattr('univip_mm.proposals.generate.selective_search', fail)
    with pytest.raises(ValueError, match='1.jpg: the search failed: no mem'):
        generate(coco_folder, images[:1], 'one.npz')


def test_reduced_copy_gives_boxes_of_the_image(tmp_path):
    image = np.full((240, 400, 3), 90, np.uint8)
    image[40:120, 200:360] = (250, 30, 30)
    boxes = Search(max_side=100, rules=ProposalRules(min_size=30))(image)
    assert np.abs(boxes - [200, 40, 360, 120]).max(axis=1).min() <= 5
    assert (boxes >= 0).all() and (boxes <= [400, 240, 400, 240]).all()
    whole = Search(max_side=400)(image)
    assert np.array_equal(whole, Search()(image))


@pytest.mark.parametrize('options', [dict(top_n=0), dict(max_side=0)])
def test_options_of_a_search_out_of_range_are_named(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Search(**options)


def test_unreadable_images_are_listed_and_have_no_boxes(coco_folder, images):
    (coco_folder / 'images' / '2.jpg').write_text('not an image')
    (coco_folder / 'images' / '5.jpg').unlink()
    outcome = generate_proposals(images, coco_folder / 'images',
                                 coco_folder / 'out.npz', SEARCH, workers=2)
    assert set(outcome.unreadable) == {'2.jpg', '5.jpg'}
    assert 'No such file' in outcome.unreadable['5.jpg']
    proposals = ProposalFile(coco_folder / 'out.npz')
    assert len(proposals) == 8
    assert len(proposals[20]) == len(proposals[50]) == 0
    assert proposals.meta['unreadable'] == [20, 50]


def test_wrong_folder_is_told_before_anything_is_written(coco_folder, images):
    with pytest.raises(ValueError, match='none of the 8 images'):
        generate_proposals(images, coco_folder / 'elsewhere',
                           coco_folder / 'out.npz', SEARCH, workers=1)
    assert not (coco_folder / 'out.npz').exists()


def test_boxes_lie_on_the_image_as_its_exif_tag_turns_it(tmp_path):
    """In a picture that a viewer turns by 90 degrees, the boxes are those of
    the turned picture, which is also what the training loads."""
    from mmcv.transforms import LoadImageFromFile
    pixels = np.full((120, 200, 3), 90, np.uint8)
    pixels[20:60, 100:180] = (250, 30, 30)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / 'a.jpg', exif=exif, quality=95)
    generate_proposals([dict(id=1, file_name='a.jpg')], tmp_path,
                       tmp_path / 'a.npz', SEARCH, workers=1)
    boxes = ProposalFile(tmp_path / 'a.npz')[1]
    assert np.abs(boxes - [60, 100, 100, 180]).max(axis=1).min() <= 2
    loaded = LoadImageFromFile()(dict(img_path=str(tmp_path / 'a.jpg')))
    assert loaded['img'].shape == (200, 120, 3)


def test_an_image_too_small_for_any_box_is_not_searched(monkeypatch):
    monkeypatch.setattr('univip_mm.proposals.generate.selective_search', None)
    for shape in ((4000, 1, 3), (2, 30000, 3), (29, 29, 3)):
        boxes = SEARCH(np.zeros(shape, np.uint8))
        assert boxes.shape == (0, 4) and boxes.dtype == np.int32


def test_a_file_that_is_cut_off_is_told(coco_folder, images):
    path = coco_folder / 'images' / '3.jpg'
    path.write_bytes(path.read_bytes()[:-500])
    assert generate(coco_folder, images[:3]).unreadable == {
        '3.jpg': 'the file ends before the image does'}
