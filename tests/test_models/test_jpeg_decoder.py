import cv2
import numpy as np
import pytest
import torch

from univip_mm.io.images import UnreadableImageError
from univip_mm.models import jpeg_decoder
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
    assert_views(decoder, FILES)
    assert decoder.num_fallbacks == 0 and len(gpu.calls) == 1 and not logged


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
    for _ in range(2):
        assert_views(decoder, FILES)
    assert len(gpu.calls) == 1 + len(FILES) and decoder.num_fallbacks == 6
    assert len(logged) == 1


def test_decoder_never_reads_past_an_image_that_is_too_small(gpu, monkeypatch):
    monkeypatch.setattr(jpeg_decoder, '_try_nvjpeg', lambda files, device: [
        torch.zeros(3, 5, 5, dtype=torch.uint8)] * len(files))
    decoder = JpegDecoder()
    assert_views(decoder, FILES)
    assert decoder.num_fallbacks == 3


def test_decoder_counts_damaged_files_and_goes_on():
    damaged = FILES[0][:-300] + b'\xff\xd9'
    decoder = JpegDecoder()
    batch = dict(batch_of(FILES[:1]), lengths=[len(damaged)],
                 files=torch.frombuffer(bytearray(damaged),
                                        dtype=torch.uint8))
    views = cut_batch(**decoder.add_images(batch, CPU))
    assert decoder.num_damaged == 1
    # The upper rows are intact.
    gaps = views[0][:, :, :8].int() - views_by_opencv(FILES[:1])[:, :, :8]
    assert gaps.abs().max() <= 1


def test_decoder_names_the_cure_for_unreadable_files():
    batch = dict(batch_of(FILES[:1]), lengths=[4],
                 files=torch.tensor([255, 216, 255, 217], dtype=torch.uint8))
    with pytest.raises(UnreadableImageError, match="set LoadEncodedImage"):
        JpegDecoder().add_images(batch, CPU)
