import numpy as np
import pytest
from PIL import Image

from univip_mm.boxes import ProposalRules, filter_boxes
from univip_mm.coco import read_coco
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
    assert proposals.meta['unreadable'] == ['2.jpg', '5.jpg']


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
