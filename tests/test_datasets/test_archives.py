"""Tests of data sets whose images are in an archive."""
import io
import os
import pickle
import shutil
import tarfile
import zipfile

import pytest
from test_file_backends import annotated, build

from univip_mm.datasets import CocoMultiLabel
from univip_mm.io import archive
from univip_mm.io.images import (
    CUT_OFF,
    MISSING,
    NOT_READ,
    REASONS,
    UnreadableImageError,
)
from univip_mm.registry import TRANSFORMS


@pytest.fixture(autouse=True)
def close_archives():
    yield
    archive._OPENED.clear()


@pytest.fixture
def packed(coco_folder):
    """Pack the images as im.zip and im.tar, in a folder 'images'."""
    for kind in ('zip', 'tar'):
        shutil.make_archive(str(coco_folder / 'im'), kind, coco_folder,
                            'images')
    return coco_folder


def views_of(dataset):
    dataset.set_epoch(0, 0)
    return [[view.tobytes() for view in dataset[i]['img']]
            for i in range(len(dataset))]


def reasons_of(dataset):
    return {index: REASONS[code - 1]
            for index, code in enumerate(dataset.skipped.tolist()) if code}


def test_views_from_archives_are_those_of_the_folder(packed):
    expected = views_of(build(packed))
    for kind in ('zip', 'tar'):
        dataset = build(packed, f'im.{kind}/images')
        worker = pickle.loads(pickle.dumps(dataset))
        archive._OPENED.clear()  # as in a new process
        os.rename(packed / 'images', packed / 'images.moved')
        assert views_of(worker) == expected
        os.rename(packed / 'images.moved', packed / 'images')
        assert reasons_of(dataset) == {}


def test_missing_file_of_an_archive_is_counted(packed):
    with zipfile.ZipFile(packed / 'im.zip') as old, zipfile.ZipFile(
            packed / 'new.zip', 'w') as new:
        for name in old.namelist():
            if name != 'images/3.jpg':
                new.writestr(name, old.read(name))
    (packed / 'images/3.jpg').unlink()
    folder, archived = build(packed), build(packed, 'new.zip/images')
    assert views_of(archived) == views_of(folder)
    assert reasons_of(archived) == reasons_of(folder) == {2: MISSING}


def test_tar_cut_short_counts_as_the_files_cut_short(packed, logged):
    with tarfile.open(packed / 'im.tar', 'w') as tar:
        for i in range(1, 9):
            tar.add(packed / f'images/{i}.jpg', f'{i}.jpg')
    with tarfile.open(packed / 'im.tar') as tar:
        cut = tar.getmember('7.jpg')
    middle = cut.size // 2
    os.truncate(packed / 'im.tar', cut.offset_data + middle)
    os.truncate(packed / 'images/7.jpg', middle)
    (packed / 'images/8.jpg').unlink()
    folder, archived = build(packed), build(packed, 'im.tar')
    assert sum('cut short after 7 files' in x for x in logged) == 1
    assert views_of(archived) == views_of(folder)
    assert reasons_of(archived) == reasons_of(folder) == {
        6: CUT_OFF, 7: MISSING}


def test_archive_that_cannot_be_used_is_refused(packed):
    for path in ('im.zip', 'im.tar/elsewhere'):
        with pytest.raises(FileNotFoundError) as e:
            build(packed, path)
        assert str(e.value).endswith(': set data_prefix.img_path to '
                                     f"'{packed / path[:6]}/images'")
    with pytest.raises(ValueError, match='use LoadEncodedImage in the'):
        build(packed, 'im.zip/images', 'LoadImageFromFile')
    with pytest.raises(ValueError, match='unpack the archive'):
        CocoMultiLabel(
            annotated(packed), data_root=str(packed),
            data_prefix=dict(img_path='im.zip/images'),
            pipeline=[TRANSFORMS.build(dict(type='LoadImageFromFile'))])
    zipped = build(packed, 'im.zip/images')
    os.truncate(packed / 'im.zip', 900)
    with pytest.raises(UnreadableImageError, match='im.zip.*cut short') as e:
        zipped.pipeline.transforms[0](zipped.get_data_info(0))
    assert e.value.reason == NOT_READ
    with pytest.raises(ValueError, match='im.zip.* is damaged or cut short'):
        build(packed, 'im.zip/images')
    with tarfile.open(packed / 'im.tar.gz', 'w:gz') as tar:
        tar.addfile(tarfile.TarInfo('1.jpg'), io.BytesIO())
    with pytest.raises(ValueError, match=r'decompress it to a \.tar'):
        build(packed, 'im.tar.gz')
