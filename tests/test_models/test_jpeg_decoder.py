import cv2
import numpy as np
import pytest
import torch
from host_waits import recorded_waits
from mmengine.structures import BaseDataElement

from univip_mm.io.images import CUT_OFF, NO_IMAGE, NoReadableImageError
from univip_mm.models import UniVIPDataPreprocessor, jpeg_decoder
from univip_mm.models.jpeg_decoder import JpegDecoder
from univip_mm.models.view_cutter import cut_batch

CPU = torch.device('cpu')


def jpeg(seed, height=60, width=80):
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    image = cv2.resize(small, (width, height))
    return cv2.imencode('.jpg', image)[1].tobytes()


def batch_of(files):
    """Return the batch of files whose two views are whole images."""
    table = torch.zeros(len(files), 2, 8, dtype=torch.int64)
    for row, data in zip(table, files):
        height, width = opencv(data).shape[:2]
        row[:, 4:] = torch.tensor([0, 0, width, height])
    return dict(
        pixels=torch.empty(0, dtype=torch.uint8), table=table, sizes=[32, 32],
        files=torch.from_numpy(np.frombuffer(b''.join(files), np.uint8)
                               .copy()), lengths=list(map(len, files)))


def opencv(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def views_by_opencv(files):
    return torch.from_numpy(np.stack([cv2.resize(
        opencv(data), (32, 32), interpolation=cv2.INTER_CUBIC)
        .transpose(2, 0, 1) for data in files])).int()


def assert_views(decoder, files):
    views = cut_batch(**decoder.add_images(batch_of(files), CPU))
    gaps = (views[0].int() - views_by_opencv(files)).abs()
    assert gaps.max() <= 1
    assert torch.equal(*views)


@pytest.fixture
def gpu(monkeypatch):
    """Imitate nvJPEG: refuse lists of a bad file and the bad file itself."""
    calls = []

    def decode(files, device):
        calls.append(files)
        listed = files if isinstance(files, list) else [files]
        if any(x in gpu.bad for x in [len(x) for x in listed]):
            return None
        images = [torch.from_numpy(opencv(x.numpy().tobytes())[..., ::-1]
                                   .transpose(2, 0, 1).copy())
                  for x in listed]
        return images if isinstance(files, list) else images[0]

    gpu.bad, gpu.calls = set(), calls
    monkeypatch.setattr(jpeg_decoder, '_is_gpu', lambda device: True)
    monkeypatch.setattr(jpeg_decoder, '_try_nvjpeg', decode)
    return gpu


FILES = [jpeg(0), jpeg(1, 50, 41), jpeg(2, 33, 90)]


def test_decoder_matches_opencv():
    decoder = JpegDecoder()
    assert_views(decoder, FILES)
    assert (decoder.num_files, decoder.num_fallbacks) == (3, 0)


def test_decoder_reads_planar_images_of_a_gpu(gpu, logged):
    decoder = JpegDecoder()
    with recorded_waits() as waits:
        decoder.add_images(batch_of(FILES), CPU)
    assert not waits
    assert_views(decoder, FILES)
    assert decoder.num_fallbacks == 0 and len(gpu.calls) == 2 and not logged


def test_decoder_counts_files_that_a_gpu_cannot_read(gpu, logged):
    gpu.bad.add(len(FILES[1]))
    decoder = JpegDecoder()
    for _ in range(2):
        assert_views(decoder, FILES)
    assert (decoder.num_files, decoder.num_fallbacks) == (6, 2)
    assert len(logged) == 1 and '1 of 3' in logged[0]


def test_decoder_asks_no_gpu_without_nvjpeg_again(gpu, logged):
    gpu.bad.update(map(len, FILES))
    decoder = JpegDecoder()
    for _ in range(24):
        assert_views(decoder, FILES)
    # 64 failures are enough, which are reached by the 22nd batch.
    assert len(gpu.calls) == 22 * (1 + len(FILES))
    assert decoder.num_fallbacks == 72
    assert len(logged) == 2 and 'any of the first 66' in logged[1]


def test_decoder_asks_the_gpu_again_after_a_bad_file(gpu, logged):
    bad = jpeg(3, 20, 30)
    gpu.bad.add(len(bad))
    decoder = JpegDecoder()
    for _ in range(70):  # a bad file alone in its batch
        assert_views(decoder, [bad] if decoder.num_files else [FILES[0]])
    assert_views(decoder, FILES)
    assert decoder.num_fallbacks == 69 and len(logged) == 1


def test_cpu_decoder_replaces_a_file_below_its_size():
    batch = batch_of([FILES[0], FILES[1]])
    batch['table'][1, :, 7] += 1  # the views need a row that does not exist
    decoder = JpegDecoder()
    views = cut_batch(**decoder.add_images(batch, CPU, ['0', '1']))[0].int()
    assert (views - views_by_opencv([FILES[0]] * 2)).abs().max() <= 1
    assert decoder.unreadable == {'1': NO_IMAGE}


@pytest.mark.parametrize('shape', [(3, 5, 200), (3, 200, 5)])
def test_decoder_never_reads_past_an_image_that_is_too_small(
        gpu, monkeypatch, shape):
    monkeypatch.setattr(jpeg_decoder, '_try_nvjpeg', lambda files, device: [
        torch.zeros(shape, dtype=torch.uint8)] * len(files))
    decoder = JpegDecoder()
    assert_views(decoder, FILES)
    assert decoder.num_fallbacks == 3


def cut_off(data):
    """Return a file without its last rows, but with an end marker."""
    return data[:-300] + b'\xff\xd9'


def test_decoder_expects_three_channels(gpu, monkeypatch):
    monkeypatch.setattr(jpeg_decoder, '_try_nvjpeg', lambda files, device: [
        torch.zeros(1, 200, 200, dtype=torch.uint8)] * len(files))
    assert_views(JpegDecoder(), FILES)


@pytest.mark.parametrize('on_gpu', [False, True])
def test_decoder_replaces_unreadable_files(on_gpu, request):
    files = [FILES[0], cut_off(FILES[1]), FILES[2], b'\xff\xd8\xff\xd9']
    if on_gpu:
        gpu = request.getfixturevalue('gpu')
        gpu.bad.update(len(files[i]) for i in (1, 3))
    batch = batch_of([FILES[0], FILES[1], FILES[2], FILES[1]])
    batch.update(files=torch.frombuffer(
        bytearray(b''.join(files)), dtype=torch.uint8),
        lengths=list(map(len, files)))
    decoder = JpegDecoder()
    for _ in range(2):
        found = decoder.add_images(batch, CPU, [f'{i}.jpg' for i in range(4)])
        views = cut_batch(**found)[0].int()
        expected = views_by_opencv([FILES[0], FILES[2], FILES[2], FILES[0]])
        assert (views - expected).abs().max() <= 1
    assert decoder.unreadable == {'1.jpg': CUT_OFF, '3.jpg': NO_IMAGE}
    assert decoder.num_fallbacks == (4 if on_gpu else 0)


def test_preprocessor_names_a_batch_of_unreadable_files():
    batch = dict(batch_of([FILES[0], FILES[0]]), lengths=[4, 4],
                 files=torch.tensor([255, 216, 255, 217] * 2,
                                    dtype=torch.uint8))
    samples = [BaseDataElement(metainfo=dict(img_path=f'{i}\n.jpg'))
               for i in range(2)]
    with pytest.raises(NoReadableImageError, match='none of the 2') as e:
        UniVIPDataPreprocessor()(dict(inputs=batch, data_samples=samples))
    assert r"'0\n.jpg'" in str(e.value) and '\n' not in str(e.value)


def test_decoder_replaces_a_file_with_a_decoded_image():
    pixels = torch.from_numpy(opencv(FILES[2]))
    batch = batch_of([FILES[0], FILES[2]])
    batch['table'][1, :, :4] = torch.tensor([0, pixels.shape[1] * 3, 3, 1])
    bad = cut_off(FILES[0])
    batch.update(pixels=pixels.flatten(), lengths=[len(bad), 0],
                 files=torch.frombuffer(bytearray(bad), dtype=torch.uint8))
    views = cut_batch(**JpegDecoder().add_images(batch, CPU))[0].int()
    assert (views - views_by_opencv([FILES[2]] * 2)).abs().max() <= 1
