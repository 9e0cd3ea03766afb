import errno
import json
import os
import shutil

import cv2
import pytest
from image_bytes import encode, exif, photograph
from PIL import Image

from univip_mm.io import image_folder
from univip_mm.io.coco_json import read_coco
from univip_mm.io.image_folder import FORMATS, list_folder
from univip_mm.io.images import read_image


def write_images(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode())


def listed(folder):
    return [x['file_name'] for x in list_folder(folder)['images']]


def test_list_folder_applies_exif_to_sizes(tmp_path):
    (tmp_path / 'b').mkdir()
    Image.new('RGB', (30, 20)).save(tmp_path / 'b' / 'x.jpg')
    Image.new('RGB', (30, 20)).save(tmp_path / 'a.JPEG', exif=exif(6))
    (tmp_path / 'c.png').write_text('no image')
    (tmp_path / 'notes.txt').write_text('')
    content = list_folder(tmp_path)
    assert content['images'] == [
        dict(id=1, file_name='a.JPEG', width=20, height=30),
        dict(id=2, file_name='b/x.jpg', width=30, height=20),
        dict(id=3, file_name='c.png')
    ]
    json.dumps(content)


@pytest.mark.timeout(20)
def test_list_folder_skips_and_counts_non_regular_files(tmp_path, caplog):
    Image.new('RGB', (30, 20)).save(tmp_path / 'c.jpg')
    os.mkfifo(tmp_path / 'a\n.jpg')
    (tmp_path / 'b.jpg').symlink_to('/dev/zero')
    (tmp_path / 'd.jpg').symlink_to('nowhere')
    (tmp_path / 'e.jpg').mkdir()
    images = list_folder(tmp_path)['images']
    assert images == [dict(id=1, file_name='c.jpg', width=30, height=20),
                      dict(id=2, file_name='d.jpg')]
    message, = caplog.messages
    assert r"2 not regular files (first: 'a\n.jpg')" in message


def test_list_folder_lists_a_linked_folder_once(tmp_path):
    (tmp_path / 'a').mkdir()
    Image.new('RGB', (30, 20)).save(tmp_path / 'a' / 'x.png')
    (tmp_path / 'a' / 'loop').symlink_to(tmp_path)
    (tmp_path / 'b').symlink_to('a')
    (tmp_path / 'elsewhere').symlink_to('nowhere')
    assert listed(tmp_path) == ['a/x.png']


@pytest.mark.timeout(20)
def test_list_folder_does_not_follow_links_upwards(tmp_path, caplog):
    folder = tmp_path / 'other' / 'photos'
    write_images(tmp_path, '1.jpg', 'other/2.jpg', 'elsewhere/a/3.jpg',
                 'elsewhere/4.jpg')
    write_images(folder, '5.jpg', 'b/6.jpg')
    (folder / 'up').symlink_to(tmp_path)
    (folder / 'b' / 'up').symlink_to('..')
    (folder / 'b' / 'here').symlink_to('.')
    (folder / 'b' / 'root').symlink_to('/')
    (folder / 'out').symlink_to(tmp_path / 'elsewhere' / 'a')
    (tmp_path / 'elsewhere' / 'a' / 'up').symlink_to('..')
    assert listed(folder) == ['5.jpg', 'b/6.jpg', 'out/3.jpg']
    assert "5 links to a parent folder (first: 'up')" in caplog.text


def test_list_folder_lists_a_linked_image_once(tmp_path, caplog):
    folder = tmp_path / 'photos'
    write_images(tmp_path, 'outside.jpg')
    write_images(folder, 'b/x.jpg', '.hidden.jpg')
    for name, target in [('a.jpg', 'b/x.jpg'), ('c.jpg', '../outside.jpg'),
                         ('d.jpg', '../outside.jpg'),
                         ('e.jpg', '.hidden.jpg'), ('f.jpg', 'gone.jpg')]:
        (folder / name).symlink_to(target)
    os.link(folder / 'b' / 'x.jpg', folder / 'b' / 'y.jpg')
    assert listed(folder) == [
        'b/x.jpg', 'b/y.jpg', 'c.jpg', 'e.jpg', 'f.jpg']
    assert '2 links to images listed under another name' in caplog.text


@pytest.mark.parametrize('name', FORMATS)
def test_list_folder_lists_what_the_decoder_reads(tmp_path, name):
    try:
        data = cv2.imencode(name, photograph())[1]
    except cv2.error:
        pytest.skip('this OpenCV does not write the format')
    for suffix in FORMATS[name]:
        (tmp_path / f'a{suffix}').write_bytes(data.tobytes())
        (tmp_path / f'b{suffix.upper()}').write_bytes(data.tobytes())
    images = list_folder(tmp_path)['images']
    assert len(images) == 2 * len(FORMATS[name])
    for image in images:
        assert read_image(tmp_path / image['file_name']).shape == (
            image['height'], image['width'], 3)


def test_list_folder_counts_what_it_leaves_out(tmp_path, caplog):
    write_images(tmp_path, 'a.jpg', '._a.jpg', '.ipynb_checkpoints/a.jpg',
                 'b/@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg', '__MACOSX/._a.jpg',
                 'x.heic', 'y.HEIC', 'notes.txt', 'hash0', 'c\udc80\n.x\ny')
    (tmp_path / 'unmounted').symlink_to('/nowhere/photos')
    assert listed(tmp_path) == ['a.jpg']
    message, = caplog.messages
    assert message == (
        f"listed 1 images of '{tmp_path}'; left out: 4 hidden or system paths "
        "(first: '._a.jpg'), 1 without suffix (first: 'hash0'), 1 broken "
        "links (first: 'unmounted'), 2 .heic (the decoder cannot read them), "
        r"1 .x\ny, 1 .txt")


@pytest.mark.parametrize('kind', ['folder', 'zip'])
def test_list_folder_leaves_out_outputs_of_a_training(
        tmp_path, caplog, kind):
    # The top folder can have files of these names; so can one folder of them.
    names = ['a.jpg', 'b/c.jpg', 'd/e.jpg', 'vis_data.jpg',
             'out/run/views.png', 'out/run/checkpoints/x/losses.png',
             'work/2026/vis_data/vis_image/views_0.png']
    others = ['run.json', 'config.py', 'b/run.json', 'd/config.py',
              'out/run/run.json', 'out/run/config.py']
    write_images(tmp_path / 'data', *names)
    for name in others:
        (tmp_path / 'data' / name).write_text('')
    source = tmp_path / 'data'
    if kind == 'zip':
        source = shutil.make_archive(tmp_path / 'x', 'zip', source)
    assert listed(source) == sorted(names[:4])
    number = 2 if kind == 'folder' else 5  # folders, or files
    assert f'{number} paths with the output of a training (first: ' in (
        caplog.text)


def test_list_folder_counts_formats_that_opencv_lacks(
        tmp_path, caplog, monkeypatch):
    def encode_all_but_gif(suffix, pixels):
        if suffix == '.gif':
            raise cv2.error('could not find a writer')
        return imencode(suffix, pixels)

    write_images(tmp_path, 'a.jpg', 'b.gif')
    imencode = cv2.imencode
    monkeypatch.setattr(cv2, 'imencode', encode_all_but_gif)
    image_folder._is_decoded.cache_clear()
    names = listed(tmp_path)
    image_folder._is_decoded.cache_clear()
    assert names == ['a.jpg']
    assert '1 .gif (the decoder cannot read them)' in caplog.text


def test_list_folder_keeps_names_of_any_bytes(tmp_path):
    names = [b'a\n.jpg', b'b\x80.jpg', b'c\\d.jpg', b'e' * 200 + b'.jpg']
    for name in names:
        (tmp_path / os.fsdecode(name)).write_bytes(encode())
    assert [os.fsencode(name) for name in listed(tmp_path)] == names


def test_list_folder_leaves_out_names_that_a_json_refuses(tmp_path, caplog):
    folder = tmp_path / 'photos'
    write_images(folder, 'C:a.jpg', '\\b.jpg', '..\\c.jpg', 'd\\..\\e.jpg',
                 'b/C:d.jpg', 'f..g.jpg', '12:30.jpg')
    json_file = tmp_path / 'list.json'
    json_file.write_text(json.dumps(list_folder(folder)))
    assert [x['file_name'] for x in read_coco(json_file)['images']] == [
        '12:30.jpg', 'b/C:d.jpg', 'f..g.jpg']
    assert '4 names like a path outside the folder' in caplog.text


def test_list_folder_orders_by_the_parts_of_the_path(tmp_path):
    write_images(tmp_path, 'a/z.jpg', 'a-b/y.jpg', 'a.jpg', 'B.jpg')
    assert listed(tmp_path) == ['B.jpg', 'a/z.jpg', 'a-b/y.jpg', 'a.jpg']


def test_list_folder_counts_folders_without_permission(
        tmp_path, caplog, monkeypatch):
    def scan(path):
        if path.endswith('locked'):  # root may open every folder
            raise PermissionError(errno.EACCES, 'Permission denied', path)
        return scandir(path)

    others = [f'{x}.{x}' for x in 'bcdefgh' for x in (x, x + 'x')]
    write_images(tmp_path, 'a.jpg', 'locked/b.jpg', *others)
    scandir = os.scandir
    monkeypatch.setattr(os, 'scandir', scan)
    assert listed(tmp_path) == ['a.jpg']
    assert ('1 folders that cannot be opened, Permission denied '
            "(first: 'locked')") in caplog.text
    assert '8 with other suffixes' in caplog.text


@pytest.mark.parametrize('name', ['', 'missing', 'file', 'x' * 300])
def test_list_folder_names_a_wrong_folder(tmp_path, name):
    (tmp_path / 'file').write_text('')
    with pytest.raises(FileNotFoundError, match='check the path'):
        list_folder(tmp_path / name if name else '')


def test_list_folder_names_empty_folder(tmp_path):
    write_images(tmp_path, 'a.heic')
    with pytest.raises(FileNotFoundError, match='no image below .* 1 .heic'):
        list_folder(tmp_path)
