import errno
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import cv2
import numpy as np
import pytest
from image_bytes import exif, many_scans
from mmcv.transforms import LoadImageFromFile
from PIL import Image

from univip_mm.io.boxes import ProposalRules, filter_boxes
from univip_mm.io.coco_json import read_coco
from univip_mm.proposals import (
    ProposalFile,
    Search,
    generate_proposals,
    selective_search,
)
from univip_mm.proposals.journal import Journal

SEARCH = Search(rules=ProposalRules(min_size=30))
SELECTIVE_SEARCH = 'univip_mm.proposals.search.selective_search'


@pytest.fixture
def images(coco_folder):
    return read_coco(coco_folder / 'train.json')['images']


def search_directly(path):
    return filter_boxes(selective_search(cv2.imread(str(path))), SEARCH.rules)


def test_file_has_filtered_boxes_of_each_image(coco_folder, images):
    out = coco_folder / 'new' / 'out.npz'
    generate_proposals(images, coco_folder / 'images', out, SEARCH,
                       source='train.json', workers=2)
    proposals = ProposalFile(out)
    assert list(proposals) == [image['id'] for image in images]
    paths = [coco_folder / 'images' / image['file_name'] for image in images]
    # Threads of other tests may call rand(), which orders the boxes.
    with ProcessPoolExecutor(1, get_context('fork')) as pool:
        for image, boxes in zip(images, pool.map(search_directly, paths)):
            assert np.array_equal(proposals[image['id']], boxes)
    assert sum(proposals.counts()) > 0
    assert proposals.meta['rules'] == dict(
        min_size=30, max_aspect_ratio=3.0, iou_thr=0.5)
    assert proposals.meta['method'] == 'selective search, fast'
    assert proposals.meta['source'] == 'train.json'


def test_search_reads_names_with_backslashes(coco_folder, images):
    for image in images:
        image['file_name'] = 'images\\' + image['file_name']
    outcome = generate_proposals(images, coco_folder, coco_folder / 'a.npz',
                                 SEARCH, workers=1)
    assert outcome.unreadable == {}


def test_result_does_not_depend_on_workers(coco_folder, images):
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


def test_interrupted_search_resumes(
        coco_folder, images, monkeypatch):
    generate(coco_folder, images, 'undisturbed.npz')
    searched = []

    def count(image, method):
        if len(searched) in (3, 6):
            searched.append(None)
            raise Interrupted
        searched.append(image)
        return selective_search(image, method)

    monkeypatch.setattr(SELECTIVE_SEARCH, count)
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


def test_finished_file_is_not_changed(coco_folder, images, monkeypatch):
    generate(coco_folder, images)
    monkeypatch.setattr(SELECTIVE_SEARCH, None)
    before = (coco_folder / 'out.npz').stat()
    outcome = generate(coco_folder, images)
    assert (outcome.searched, outcome.found_before) == (0, 8)
    after = (coco_folder / 'out.npz').stat()
    assert (after.st_ino, after.st_mtime_ns) == (
        before.st_ino, before.st_mtime_ns)
    assert not (coco_folder / 'out.npz.parts').exists()


def test_no_images_write_nothing(coco_folder):
    outcome = generate_proposals(
        [], coco_folder / 'images', coco_folder / 'out.npz', SEARCH)
    assert outcome == (0, 0, {}, 0)
    assert not list(coco_folder.glob('out.npz*'))


def test_repaired_images_are_searched(coco_folder, images):
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


def test_image_repaired_before_resume_is_searched(
        coco_folder, images, monkeypatch):
    path = coco_folder / 'images' / '1.jpg'
    whole = path.read_bytes()
    path.write_bytes(b'')
    monkeypatch.setattr(SELECTIVE_SEARCH, None)
    with pytest.raises(TypeError):
        generate(coco_folder, images)
    monkeypatch.undo()
    path.write_bytes(whole)
    outcome = generate(coco_folder, images)
    assert (outcome.searched, outcome.unreadable) == (8, {})


def test_file_of_other_search_is_replaced(
        coco_folder, images):
    generate(coco_folder, images)
    other = Search(rules=ProposalRules(min_size=40))
    assert generate(coco_folder, images, search=other).searched == 8
    assert ProposalFile(coco_folder / 'out.npz').meta['rules'][
        'min_size'] == 40


def one_box(image, method):
    return np.array([[0, 0, 80, 80]])


@pytest.fixture
def quick_search(monkeypatch):
    monkeypatch.setattr(SELECTIVE_SEARCH, one_box)


@pytest.mark.parametrize('finished', [True, False])
def test_changed_list_searches_new_images_only(
        coco_folder, images, finished, monkeypatch, quick_search):
    whole = [*images[2:], dict(id=5, file_name='1.jpg')]
    generate(coco_folder, whole, 'undisturbed.npz')
    if not finished:
        monkeypatch.setattr('univip_mm.proposals.generate._finish',
                            lambda *args: ValueError('stopped'))
        with pytest.raises(ValueError, match='stopped'):
            generate(coco_folder, images)
        monkeypatch.undo()
        monkeypatch.setattr(SELECTIVE_SEARCH, one_box)
    else:
        generate(coco_folder, images)
    outcome = generate(coco_folder, whole)
    assert (outcome.searched, outcome.found_before) == (1, 6)
    assert (coco_folder / 'out.npz').read_bytes() == (
        coco_folder / 'undisturbed.npz').read_bytes()


def test_full_disk_keeps_results(
        coco_folder, images, monkeypatch, quick_search):
    def fill_disk(*args):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(
        'univip_mm.proposals.result.write_proposals', fill_disk)
    with pytest.raises(OSError, match="kept in .*out.npz.parts'; free disk"):
        generate(coco_folder, images)
    monkeypatch.undo()
    monkeypatch.setattr(SELECTIVE_SEARCH, None)
    outcome = generate(coco_folder, images)
    assert (outcome.searched, outcome.found_before) == (0, 8)
    assert len(ProposalFile(coco_folder / 'out.npz')) == 8


def test_full_disk_during_search_keeps_results(
        coco_folder, images, monkeypatch, quick_search):
    write = Journal.write

    def fill_disk(self, image_id, *rest):
        if image_id == 60:
            raise OSError(errno.ENOSPC, 'No space left on device')
        write(self, image_id, *rest)

    monkeypatch.setattr(Journal, 'write', fill_disk)
    with pytest.raises(OSError, match='No space.*finished images are kept'):
        generate(coco_folder, images)
    monkeypatch.setattr(Journal, 'write', write)
    assert generate(coco_folder, images).found_before == 5


def test_list_file_leaves_out_unreadable_images(
        coco_folder, images, quick_search):
    (coco_folder / 'images' / '3.jpg').write_text('not an image')
    path = coco_folder / 'out.images.json'

    def search(found):
        return generate_proposals(
            found, coco_folder / 'images', coco_folder / 'out.npz', SEARCH,
            workers=1, list_file=path)

    assert set(search(images).unreadable) == {'3.jpg'}
    kept = [x for x in images if x['id'] != 30]
    assert read_coco(path)['images'] == kept
    assert list(ProposalFile(coco_folder / 'out.npz')) == [
        x['id'] for x in kept]
    lines = (coco_folder / 'out.unreadable.txt').read_text().splitlines()
    assert len(lines) == 1 and lines[0].startswith('3.jpg\tnot an image')
    before = (coco_folder / 'out.npz').stat().st_mtime_ns
    assert search(images).searched == 1  # tried again
    assert search(kept).searched == 0
    assert (coco_folder / 'out.npz').stat().st_mtime_ns == before
    assert not (coco_folder / 'out.unreadable.txt').exists()


def test_large_images_are_searched_in_a_copy_and_counted(tmp_path):
    pixels = np.full((1200, 2000, 3), 90, np.uint8)
    pixels[200:600, 1000:1800] = (250, 30, 30)
    names = 'a.png', 'b.png'
    Image.fromarray(pixels).save(tmp_path / names[0])
    Image.fromarray(pixels[::10, ::10]).save(tmp_path / names[1])
    images = [dict(id=i, file_name=name) for i, name in enumerate(names)]
    for number in (2, 1, 2):  # also if the earlier result is used again
        outcome = generate_proposals(images[:number], tmp_path,
                                     tmp_path / 'a.npz', SEARCH, workers=1)
        assert outcome.reduced == 1
        proposals = ProposalFile(tmp_path / 'a.npz')
        assert proposals.meta['reduced'] == [0]
    assert np.abs(proposals[0] - [1000, 200, 1800, 600]).max(
        axis=1).min() <= 10


def test_unfinished_search_with_other_options_raises(
        coco_folder, images, monkeypatch):
    monkeypatch.setattr(SELECTIVE_SEARCH, None)
    with pytest.raises(TypeError):
        generate(coco_folder, images)
    with pytest.raises(ValueError, match='top_n=None, but now it is 5'):
        generate(coco_folder, images, search=Search(
            rules=SEARCH.rules, top_n=5))


def test_lost_result_raises_and_is_searched_again(
        coco_folder, images, monkeypatch):
    write = Journal.write
    monkeypatch.setattr(
        Journal, 'write', lambda self, image_id, *rest:
        image_id == 30 or write(self, image_id, *rest))
    with pytest.raises(ValueError, match='results of 1 images: repeat'):
        generate(coco_folder, images)
    monkeypatch.undo()
    assert generate(coco_folder, images).searched == 1


def test_search_error_names_image(
        coco_folder, images, monkeypatch):
    def fail(image, method):
        raise cv2.error('no memory')

    generate(coco_folder, images[1:])
    monkeypatch.setattr(SELECTIVE_SEARCH, fail)
    with pytest.raises(ValueError, match='1.jpg: the search failed: no mem'):
        generate(coco_folder, images[:1], 'one.npz')


def test_unreadable_images_have_no_boxes(coco_folder, images):
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


@pytest.mark.timeout(60)
@pytest.mark.parametrize('workers', [1, 2])
def test_bad_names_and_files_do_not_end_the_search(
        coco_folder, images, workers, quick_search):
    folder = coco_folder / 'images'
    for number in range(2, 7):
        (folder / f'{number}.jpg').unlink()
    os.mkfifo(folder / '2.jpg')
    (folder / '3.jpg').symlink_to('/dev/zero')
    (folder / '4.jpg').symlink_to('4.jpg')
    (folder / '5.jpg').mkdir()
    (folder / '6.jpg').write_bytes(many_scans(51))
    names = ['a\0b.jpg', '\ud800.jpg', 'x' * 300, 'a/' * 3000, 'no/1.jpg',
             '1.jpg/x', 'a\n.jpg']
    bad = [dict(id=i, file_name=name) for i, name in enumerate(names, 100)]
    outcome = generate(coco_folder, images + bad, workers=workers)
    assert outcome.unreadable.keys() == {
        *names, *(f'{number}.jpg' for number in range(2, 7))}
    for number, reason in {2: 'not a regular file', 3: 'not a regular file',
                           4: 'symbolic links', 5: 'not a regular file',
                           6: 'too many progressive scans'}.items():
        assert reason in outcome.unreadable[f'{number}.jpg']
    assert 'invalid file name' in outcome.unreadable['a\0b.jpg']
    assert ProposalFile(coco_folder / 'out.npz').counts().sum() == 3


def test_damaged_journal_lines_are_searched_again(
        coco_folder, images, monkeypatch):
    generate(coco_folder, images, 'undisturbed.npz')
    monkeypatch.setattr('univip_mm.proposals.generate._finish',
                        lambda *args: ValueError('stopped'))
    with pytest.raises(ValueError, match='stopped'):
        generate(coco_folder, images)
    monkeypatch.undo()
    path, = (coco_folder / 'out.npz.parts').glob('*.jsonl')
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = b'\0' * 40 + b'\n'
    lines[3] = b'[40,"4.jpg",[0,0,9999,9999],null,false]\n'
    lines[5] = lines[5].replace(b',', b',1', 2)
    path.write_bytes(b''.join(lines[:-1]) + lines[-1][:-9])
    outcome = generate(coco_folder, images)
    assert (outcome.searched, outcome.found_before) == (4, 4)
    assert (coco_folder / 'out.npz').read_bytes() == (
        coco_folder / 'undisturbed.npz').read_bytes()


def test_wrong_folder_raises_and_writes_nothing(coco_folder, images):
    with pytest.raises(ValueError, match='none of 8 images that were tried'):
        generate_proposals(images, coco_folder / 'elsewhere',
                           coco_folder / 'out.npz', SEARCH, workers=1)
    assert not (coco_folder / 'out.npz').exists()


def test_boxes_follow_exif_orientation(tmp_path):
    pixels = np.full((120, 200, 3), 90, np.uint8)
    pixels[20:60, 100:180] = (250, 30, 30)
    Image.fromarray(pixels).save(tmp_path / 'a.jpg', exif=exif(6), quality=95)
    generate_proposals([dict(id=1, file_name='a.jpg')], tmp_path,
                       tmp_path / 'a.npz', SEARCH, workers=1)
    boxes = ProposalFile(tmp_path / 'a.npz')[1]
    assert np.abs(boxes - [60, 100, 100, 180]).max(axis=1).min() <= 2
    # The training loads the rotated image too.
    loaded = LoadImageFromFile()(dict(img_path=str(tmp_path / 'a.jpg')))
    assert loaded['img'].shape == (200, 120, 3)


def test_incomplete_image_is_reported(coco_folder, images):
    path = coco_folder / 'images' / '3.jpg'
    path.write_bytes(path.read_bytes()[:-500])
    assert generate(coco_folder, images[:3]).unreadable == {
        '3.jpg': 'the file ends before the image does'}
