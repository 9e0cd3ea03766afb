import json

import pytest
from image_bytes import encode

from univip_mm.io.data_sources import check_outside, read_sources


def write(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode())


def write_coco(path, *names):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(images=[
        dict(id=7 + i, file_name=name, width=400, height=300, license=3)
        for i, name in enumerate(names)], annotations=[], categories=[])))
    return path


def names(sources):
    return [x['file_name'] for x in sources.images]


def test_read_sources_lists_a_folder(tmp_path):
    write(tmp_path / 'a' / 'b' / 'x.jpg')
    sources = read_sources(tmp_path / 'a')
    assert sources.folder == str(tmp_path / 'a')
    assert sources.images == [
        dict(id=1, file_name='b/x.jpg', width=400, height=300)]


@pytest.mark.parametrize('layout', ['pair', 'text', 'beside', 'coco'])
def test_read_sources_finds_images_of_a_json(tmp_path, layout):
    folder = tmp_path / ('train2017' if layout == 'coco' else 'images')
    write(folder / 'x.jpg')
    ann_file = write_coco(
        tmp_path / 'annotations' / 'instances_train2017.json', 'x.jpg')
    source = (ann_file, folder) if layout == 'pair' else (
        f'{ann_file}:{folder}' if layout == 'text' else str(ann_file))
    sources = read_sources(source)
    assert sources.folder == str(folder)
    assert sources.images == [
        dict(id=1, file_name='x.jpg', width=400, height=300)]


def test_read_sources_joins_and_counts_repeated(tmp_path, caplog):
    write(tmp_path / 'a' / 'x.jpg')
    write(tmp_path / 'b' / 'x.jpg')
    write(tmp_path / 'b' / 'c' / 'y.jpg')
    ann_file = write_coco(tmp_path / 'list.json', 'x.jpg')
    sources = read_sources(
        [tmp_path / 'a', tmp_path / 'b', (ann_file, tmp_path / 'a')])
    assert sources.folder == str(tmp_path)
    assert names(sources) == ['a/x.jpg', 'b/c/y.jpg', 'b/x.jpg']
    assert [x['id'] for x in sources.images] == [1, 2, 3]
    assert '1 images are listed more than once' in caplog.text


def test_read_sources_uses_a_file_of_two_ids_once(tmp_path, caplog):
    write(tmp_path / 'x.jpg')
    ann_file = write_coco(tmp_path / 'list.json', 'x.jpg', './x.jpg', 'x.jpg')
    assert names(read_sources(ann_file)) == ['x.jpg']
    assert '2 images are listed more than once' in caplog.text


def test_read_sources_reports_wrong_sources(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ann_file = write_coco(tmp_path / 'list.json', 'x.jpg')
    for source, error, text in (
            ('photos', FileNotFoundError, "no folder 'photos' here"),
            (str(ann_file), ValueError, 'list.json:FOLDER'),
            (f'{ann_file}:{tmp_path}', FileNotFoundError, 'no image of'),
            ('http://host/a', ValueError, 'local disk'), ([], ValueError,
                                                          'no source')):
        with pytest.raises(error, match=text):
            read_sources(source)


def test_check_outside_refuses_a_folder_of_the_images(tmp_path):
    write(tmp_path / 'photos' / 'x.jpg')
    check_outside(tmp_path / 'run', '--out', tmp_path / 'photos')
    check_outside(tmp_path / 'photos2', '--out', [tmp_path / 'photos'])
    (tmp_path / 'link').symlink_to(tmp_path / 'photos')
    for source in ('photos', 'link'):
        for out in ('photos', 'photos/run', 'link/a/b'):
            with pytest.raises(ValueError, match='choose a folder outside'):
                check_outside(tmp_path / out, '--out',
                              ['other', tmp_path / source])
