import functools
import http.server
import json
import shutil
import sys
import threading

import numpy as np
import pytest
from mmengine.fileio.backends import backends, prefix_to_backends
from mmengine.fileio.backends.base import BaseStorageBackend

from univip_mm.datasets import CocoMultiLabel, ProposalCocoDataset
from univip_mm.datasets.file_backends import check_file_backend
from univip_mm.io.images import NoReadableImageError, read_image
from univip_mm.registry import TRANSFORMS


def build(root, prefix='images', loader='LoadEncodedImage', **backend_args):
    crop = TRANSFORMS.build(dict(type='OverlapSceneCrop', scene_size=32,
                                 instance_size=16))
    options = dict(backend_args=backend_args) if backend_args else {}
    return ProposalCocoDataset(
        ann_file=str(root / 'train.json'), data_root=str(root),
        proposal_file=str(root / 'train.npz'),
        data_prefix=dict(img_path=prefix),
        pipeline=[TRANSFORMS.build(dict(type=loader, **options)), crop])


@pytest.fixture
def server(coco_folder):
    """Serve the data set's folder; yield the URL and the server."""

    class Handler(http.server.SimpleHTTPRequestHandler):

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(
            ('127.0.0.1', 0), functools.partial(
                Handler, directory=str(coco_folder))) as found:
        thread = threading.Thread(target=found.serve_forever, args=(.02, ))
        thread.start()
        yield f'http://127.0.0.1:{found.server_address[1]}', found
        found.shutdown()
        thread.join()


@pytest.fixture
def memory(monkeypatch, coco_folder):
    """Register a file backend with the images of the folder."""
    images = {path.name: path.read_bytes()
              for path in (coco_folder / 'images').iterdir()}

    class Memory(BaseStorageBackend):

        def __init__(self, size=1):
            if size < 1:
                raise TypeError('size must be positive')

        def get(self, filepath):
            return images.get(filepath.rpartition('/')[2])

        def get_text(self, filepath):
            raise NotImplementedError

    monkeypatch.setitem(backends, 'memory', Memory)
    monkeypatch.setitem(prefix_to_backends, 'memory', Memory)
    return images


@pytest.mark.parametrize('loader', ['LoadEncodedImage', 'LoadImageFromFile'])
def test_images_are_read_from_web_server(coco_folder, server, loader):
    remote = build(coco_folder, f'{server[0]}/images', loader)
    local = build(coco_folder)
    for dataset in (remote, local):
        dataset.set_epoch(0, 0)
    assert remote.get_data_info(2)['img_path'] == f'{server[0]}/images/3.jpg'
    assert (remote[2]['img'][0] == local[2]['img'][0]).all()


@pytest.mark.parametrize('cls', [ProposalCocoDataset, CocoMultiLabel])
def test_data_root_can_be_a_url(coco_folder, server, cls):
    files = dict(ann_file=annotated(coco_folder))
    if cls is ProposalCocoDataset:
        files['proposal_file'] = str(coco_folder / 'train.npz')
    options = dict(data_root=server[0], data_prefix=dict(img_path='images'),
                   pipeline=[TRANSFORMS.build(dict(type='LoadImageFromFile'))])
    dataset = cls(**files, **options)
    assert dataset.get_data_info(2)['img_path'] == f'{server[0]}/images/3.jpg'
    np.testing.assert_array_equal(
        dataset[2]['img'], read_image(coco_folder / 'images/3.jpg'))
    for option, path in files.items():
        name = path.rpartition('/')[2]
        with pytest.raises(ValueError) as e:
            cls(**dict(files, **{option: name}), **options)
        assert str(e.value) == (
            f"{option} is the URL '{server[0]}/{name}', but must be a path on "
            'the local disk: copy the file there, and set its absolute path '
            'if data_root is a URL')


def annotated(folder):
    """Write a json with an object in each image; return its path."""
    images = json.loads((folder / 'train.json').read_text())['images']
    objects = [dict(id=x['id'], image_id=x['id'], category_id=1,
                    bbox=[0, 0, 9, 9], area=81, iscrowd=0) for x in images]
    (folder / 'all.json').write_text(json.dumps(dict(
        images=images, annotations=objects,
        categories=[dict(id=1, name='cat')])))
    return str(folder / 'all.json')


def test_archive_on_a_server_is_refused(coco_folder, server):
    shutil.make_archive(str(coco_folder / 'x'), 'zip', coco_folder / 'images')
    with pytest.raises(FileNotFoundError) as e:
        build(coco_folder, f'{server[0]}/x.zip')
    assert 'an archive must be on the local disk, so copy' in str(e.value)


def test_missing_images_of_server_are_named(coco_folder, server):
    with pytest.raises(FileNotFoundError) as e:
        build(coco_folder, f'{server[0]}/elsewhere')
    assert 'HTTP Error 404' in str(e.value)
    assert 'check data_prefix.img_path' in str(e.value)


def test_stopped_server_is_named(coco_folder):
    with pytest.raises(FileNotFoundError, match='Connection refused'):
        build(coco_folder, 'http://127.0.0.1:9/images')


def test_images_in_a_row_name_the_reason(coco_folder, server):
    dataset = build(coco_folder, f'{server[0]}/images')
    for path in (coco_folder / 'images').iterdir():
        path.unlink()
    with pytest.raises(NoReadableImageError) as e:
        dataset[0]
    assert 'HTTP Error 404' in str(e.value)
    assert str(e.value).endswith(
        'check the network and backend_args of the loader')


def test_unknown_scheme_is_refused(coco_folder):
    with pytest.raises(ValueError) as e:
        build(coco_folder, 'gopher://host/images')
    assert "'gopher://host/images/1.jpg' needs the URL scheme 'gopher'" in str(
        e.value)
    assert 'http, https, petrel, s3' in str(e.value)


def test_unknown_backend_is_refused(coco_folder):
    with pytest.raises(ValueError, match="the file backend 'zip'.*lmdb"):
        build(coco_folder, backend='zip')


@pytest.mark.parametrize('loader', ['LoadEncodedImage', 'LoadImageFromFile'])
def test_missing_package_is_named(coco_folder, monkeypatch, loader):
    monkeypatch.setitem(sys.modules, 'lmdb', None)
    with pytest.raises(ValueError) as e:
        build(coco_folder, '', loader, backend='lmdb', db_path='a.lmdb')
    assert 'pip install lmdb' in str(e.value) and '\n' not in str(e.value)


def test_wrong_option_of_backend_is_named(coco_folder, memory):
    with pytest.raises(ValueError, match='TypeError: size must be positive'):
        build(coco_folder, backend='memory', size=0)


def test_entry_that_is_missing_in_archive_is_skipped(coco_folder, memory):
    del memory['3.jpg']
    dataset = build(coco_folder, backend='memory')
    dataset.set_epoch(0, 0)
    assert not dataset[2]['img_path'].endswith('3.jpg')
    assert dataset.skipped.tolist() == [0, 0, 1, 0, 0, 0, 0, 0]
    memory.clear()
    with pytest.raises(FileNotFoundError, match='there is no such entry'):
        build(coco_folder, 'memory://images')


def test_cluster_name_of_petrel_is_no_scheme():
    with pytest.raises(ValueError, match="the file backend 's3'.*petrel"):
        check_file_backend(['cluster:s3://bucket/a.jpg'], None)


@pytest.mark.parametrize('option', ['ann_file', 'proposal_file'])
def test_remote_lists_are_refused(coco_folder, option):
    options = dict(ann_file='train.json', proposal_file='train.npz')
    options[option] = 'http://host/train'
    with pytest.raises(ValueError, match=f"{option} is the URL 'http://host"):
        ProposalCocoDataset(data_root=str(coco_folder), **options)


def test_file_name_with_url_is_refused(coco_folder):
    path = coco_folder / 'train.json'
    path.write_text(json.dumps(dict(images=[
        dict(id=10, file_name='http://host/1.jpg')])))
    with pytest.raises(ValueError, match="'http://host/1.jpg'"):
        build(coco_folder)
