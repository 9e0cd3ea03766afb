import json
import os
import pickle

import numpy as np
import pytest
from image_bytes import encode, exif, photograph

from univip_mm.io.cache_writer import cache_pixels
from univip_mm.io.coco_json import read_coco
from univip_mm.io.images import decode_image
from univip_mm.io.pixel_cache import PixelCache

FILES = {
    'a.jpg': encode(), 'odd.jpg': encode(image=photograph(77, 101)),
    'gray.jpg': encode(mode='L'), 'cmyk.jpg': encode(mode='CMYK'),
    'turned.jpg': encode(exif=exif(6)), 'b.png': encode(format='PNG'),
    'größe.jpg': encode(progressive=True),
    'caf\udce9.jpg': encode(quality=50)}  # not UTF-8


@pytest.fixture
def photographs(tmp_path):
    """Return a folder with FILES in ``images`` and their ``list.json``."""
    return write_files(tmp_path, FILES)


def write_files(root, files):
    (root / 'images').mkdir()
    for name, data in files.items():
        (root / 'images' / name).write_bytes(data)
    # Ids in descending order: the index must be sorted.
    (root / 'list.json').write_text(json.dumps(dict(images=[
        dict(id=100 - i, file_name=name) for i, name in enumerate(files)])))
    return root


def cache_of(root, **kwargs):
    images = read_coco(root / 'list.json')['images']
    outcome = cache_pixels(images, root / 'images', root / 'out.pixels',
                           workers=1, **kwargs)
    return PixelCache(root / 'out.pixels'), outcome


def pixels_of(cache, image_id):
    entry = cache.entry(image_id)
    return entry and cache.pixels(entry)


def test_cache_has_the_pixels_of_decode_image(photographs):
    cache, outcome = cache_of(photographs)
    assert outcome.decoded == len(cache) == len(FILES)
    cache.check()
    for i, (name, data) in enumerate(FILES.items()):
        entry = cache.entry(100 - i)
        pixels = cache.pixels(entry)
        assert np.array_equal(pixels, decode_image(data)), name
        assert not pixels.flags.writeable
        assert pixels.ctypes.data % 64 == 0
        assert entry.name == name
        assert entry.source.size == len(data)
    assert cache.entry(5) is cache.entry(101) is cache.entry(-3) is None


def test_cache_is_pickled_without_its_map(photographs):
    cache, _ = cache_of(photographs)
    expected = pixels_of(cache, 100)
    data = pickle.dumps(cache)
    assert len(data) < 300
    assert np.array_equal(pixels_of(pickle.loads(data), 100), expected)


@pytest.mark.parametrize('change, reason', [
    (lambda data: data[:-1], 'instead of'),
    (lambda data: data[:1000], 'instead of'),
    (lambda data: b'', 'empty'),
    (lambda data: bytes(64) + data[64:], 'not a finished pixel cache'),
    (lambda data: data[:20] + b'\1' + data[21:], 'header'),
    (lambda data: data[:-1] + bytes([data[-1] ^ 1]), 'index'),
])
def test_damaged_cache_is_refused(photographs, change, reason):
    cache_of(photographs)
    path = photographs / 'out.pixels'
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=f'{reason}.*run tools/cache_pixels'):
        PixelCache(path).check()


def test_missing_cache_names_the_tool(tmp_path):
    with pytest.raises(FileNotFoundError, match='tools/cache_pixels.py'):
        PixelCache(tmp_path / 'none').check()


def test_map_outlives_a_replaced_file(photographs):
    cache, _ = cache_of(photographs)
    expected = pixels_of(cache, 100).copy()
    os.replace(photographs / 'list.json', photographs / 'out.pixels')
    assert np.array_equal(pixels_of(cache, 100), expected)
