import cv2
import numpy as np
import pytest
import simplejpeg
from image_bytes import encode, exif, photograph
from mmcv.transforms import LoadImageFromFile

from univip_mm.datasets import LoadEncodedImage, OverlapSceneCrop
from univip_mm.io.encoded_image import EncodedImage
from univip_mm.io.images import UnreadableImageError
from univip_mm.registry import TRANSFORMS


@pytest.mark.parametrize('options', [
    dict(), dict(mode='L'), dict(mode='CMYK'), dict(format='PNG'),
    dict(quality=40, subsampling=2), dict(quality=95, subsampling=0),
    dict(progressive=True), dict(exif=exif(1)),
    dict(exif=exif(6)), dict(exif=exif(3)),
    dict(comment=b'a comment', exif=exif(8)),
    dict(image=photograph(301, 77)),
])
def test_load_encoded_image_matches_host(tmp_path, options):
    path = tmp_path / 'image'
    path.write_bytes(encode(**options))
    theirs = LoadImageFromFile()(dict(img_path=str(path)))
    ours = LoadEncodedImage()(dict(img_path=str(path)))
    assert ours['img'].shape == theirs['img'].shape
    assert np.array_equal(ours['img'].decode(), theirs['img'])
    assert ours['img_shape'] == theirs['img_shape'] == ours['ori_shape']


def test_cache_below_the_home_folder_is_found(monkeypatch):
    monkeypatch.setenv('HOME', '/home/someone')
    cache, = LoadEncodedImage(cache='~/x.pixels').caches
    assert cache.path == '/home/someone/x.pixels'


def test_views_match_those_of_decoded_image():
    data = encode()
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    proposals = np.zeros((0, 4), np.float32)
    ours, theirs = (
        OverlapSceneCrop()(dict(img=img, proposals=proposals, view_seed=3))
        for img in (EncodedImage(data), pixels))
    assert all(map(np.array_equal, ours['img'], theirs['img']))


ODD_JPEGS = [
    *(encode(**options) for options in (
        dict(subsampling='4:2:0'), dict(subsampling='4:2:2'),
        dict(subsampling='4:1:1'), dict(mode='L'), dict(mode='CMYK'),
        dict(progressive=True), dict(exif=exif(6)),
        dict(restart_marker_rows=1), dict(image=photograph(131, 77)))),
    simplejpeg.encode_jpeg(photograph(), colorsubsampling='440')]


def views_of(img, seed=3):
    crop = OverlapSceneCrop(scene_size=64, instance_size=32)
    results = dict(proposals=np.zeros((0, 4), np.float32), view_seed=seed)
    return crop(dict(results, img=img))['img']


@pytest.mark.parametrize('data', ODD_JPEGS, ids=range(len(ODD_JPEGS)))
def test_views_of_odd_jpegs_match_opencv(data):
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    for seed in range(4):
        ours, theirs = (views_of(x, seed)
                        for x in (EncodedImage(data), pixels))
        assert all(map(np.array_equal, ours, theirs))


@pytest.mark.parametrize('data', ODD_JPEGS, ids=range(len(ODD_JPEGS)))
def test_jpegs_cut_off_anywhere_are_unreadable(data):
    for twentieths in range(20):
        with pytest.raises(UnreadableImageError):
            views_of(EncodedImage(data[:len(data) * twentieths // 20]),
                     twentieths)


def test_views_of_reduced_image_match_full_image():
    rng = np.random.default_rng(0)
    image = photograph(1200, 1600)
    data = encode(image=image, quality=95)
    proposals = np.zeros((0, 4), np.float32)
    reductions = 0
    for seed in rng.integers(0, 2**62, 20).tolist():
        sample = dict(proposals=proposals, view_seed=seed)
        crop = OverlapSceneCrop(scene_size=64, instance_size=32)
        full = crop(dict(img=EncodedImage(data), **sample))
        reduced = crop(dict(img=EncodedImage(data, reduce=True), **sample))
        assert np.array_equal(full['instance_boxes'],
                              reduced['instance_boxes'])
        for a, b in zip(full['img'], reduced['img']):
            assert cv2.PSNR(a.copy(), b.copy()) > 28
        reductions += not np.array_equal(full['img'][0], reduced['img'][0])
    assert reductions > 5


def test_missing_file_raises_unreadable_image_error(tmp_path):
    with pytest.raises(UnreadableImageError, match=r'none\.jpg'):
        LoadEncodedImage()(dict(img_path=str(tmp_path / 'none.jpg')))


def test_load_encoded_image_is_registered():
    built = TRANSFORMS.build(
        dict(type='univip_mm.LoadEncodedImage', reduce=True))
    assert 'reduce=True' in repr(built)


def test_only_complete_plain_jpegs_go_to_the_device():
    data = encode()
    assert EncodedImage(data, for_device=True).file_for_device() == data
    assert EncodedImage(data).file_for_device() is None
    for other in (data[:-1], data + b'\0', cv2.imencode(
            '.png', photograph())[1].tobytes()):
        image = EncodedImage(other, for_device=True)
        assert image.file_for_device() is None


@pytest.mark.parametrize('options, message', [
    (dict(decode='gpu'), "must be 'worker' or 'device'"),
    (dict(decode='device', reduce=True), 'no reduce')])
def test_load_refuses_bad_decode_options(options, message):
    with pytest.raises(ValueError, match=message):
        LoadEncodedImage(**options)
