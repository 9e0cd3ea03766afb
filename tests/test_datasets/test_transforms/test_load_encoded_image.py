import io

import cv2
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from PIL import Image

from univip_mm.datasets import OverlapSceneCrop
from univip_mm.datasets.transforms.load_encoded_image import (
    EncodedImage,
    LoadEncodedImage,
)
from univip_mm.io.images import UnreadableImageError
from univip_mm.registry import TRANSFORMS


def photograph(height=300, width=400, seed=0):
    """Something smooth with edges, (H, W, 3) uint8."""
    small = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    return np.array(Image.fromarray(small).resize((width, height)))


def encoded(mode='RGB', format='JPEG', image=None, **options):
    image = photograph() if image is None else image
    file = io.BytesIO()
    Image.fromarray(image).convert(mode).save(file, format, **options)
    return file.getvalue()


def orientation(value):
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


@pytest.mark.parametrize('options', [
    dict(), dict(mode='L'), dict(mode='CMYK'), dict(format='PNG'),
    dict(quality=40, subsampling=2), dict(quality=95, subsampling=0),
    dict(progressive=True), dict(exif=orientation(1)),
    dict(exif=orientation(6)), dict(exif=orientation(3)),
    dict(comment=b'a comment', exif=orientation(8)),
    dict(image=photograph(301, 77)),
])
def test_pixels_are_those_of_the_host(tmp_path, options):
    path = tmp_path / 'image'
    path.write_bytes(encoded(**options))
    theirs = LoadImageFromFile()(dict(img_path=str(path)))
    ours = LoadEncodedImage()(dict(img_path=str(path)))
    assert ours['img'].shape == theirs['img'].shape
    assert np.array_equal(ours['img'].decode(), theirs['img'])
    assert ours['img_shape'] == theirs['img_shape'] == ours['ori_shape']


def test_views_are_those_of_a_decoded_image():
    data = encoded()
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    proposals = np.zeros((0, 4), np.float32)
    ours, theirs = (
        OverlapSceneCrop()(dict(img=img, proposals=proposals, view_seed=3))
        for img in (EncodedImage(data), pixels))
    assert all(map(np.array_equal, ours['img'], theirs['img']))


@pytest.mark.parametrize('scale, eighths', [
    (1.0, 8), (0.51, 8), (0.5, 4), (0.26, 3), (0.25, 2), (0.01, 1)])
def test_no_view_gets_fewer_pixels_than_it_needs(scale, eighths):
    image = photograph(1200, 1600)
    reduced = EncodedImage(encoded(image=image), reduce=True).decode(scale)
    assert reduced.shape == (150 * eighths, 200 * eighths, 3)
    area = cv2.resize(image[..., ::-1], reduced.shape[1::-1],
                      interpolation=cv2.INTER_AREA)
    assert cv2.PSNR(reduced, area) > 35
    assert EncodedImage(encoded(image=image)).decode(scale).shape == (
        1200, 1600, 3)


def test_views_of_a_reduced_image_show_the_same():
    rng = np.random.default_rng(0)
    image = photograph(1200, 1600)
    data = encoded(image=image, quality=95)
    proposals = np.zeros((0, 4), np.float32)
    reductions = 0
    for seed in rng.integers(0, 2**62, 20).tolist():
        sample = dict(proposals=proposals, view_seed=seed)
        crop = OverlapSceneCrop(scene_size=64, instance_size=32)
        whole = crop(dict(img=EncodedImage(data), **sample))
        reduced = crop(dict(img=EncodedImage(data, reduce=True), **sample))
        assert np.array_equal(whole['instance_boxes'],
                              reduced['instance_boxes'])
        for a, b in zip(whole['img'], reduced['img']):
            assert cv2.PSNR(a.copy(), b.copy()) > 28
        reductions += not np.array_equal(whole['img'][0], reduced['img'][0])
    assert reductions > 5


def test_the_faster_transform_changes_little():
    data = encoded()
    exact = EncodedImage(data).decode()
    fast = EncodedImage(data, fast_dct=True).decode()
    assert not np.array_equal(exact, fast)
    assert cv2.PSNR(exact, fast) > 38


@pytest.mark.parametrize('data', [
    b'', b'not an image', encoded()[:-500], encoded()[:40], b'\xff\xd8\xff',
    encoded(format='PNG')[:100]])
def test_what_is_not_a_whole_image_is_an_error(data):
    with pytest.raises(UnreadableImageError):
        EncodedImage(data).decode()


def test_a_stray_byte_is_not_an_error():
    data = encoded()
    data = data[:-2] + b'\0\0\0' + data[-2:]
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(EncodedImage(data).decode(), pixels)


def test_a_missing_file_is_an_unreadable_image(tmp_path):
    with pytest.raises(UnreadableImageError, match=r'none\.jpg'):
        LoadEncodedImage()(dict(img_path=str(tmp_path / 'none.jpg')))


def test_is_registered():
    built = TRANSFORMS.build(
        dict(type='univip_mm.LoadEncodedImage', reduce=True))
    assert 'reduce=True' in repr(built)
