import pytest
from image_bytes import encode, exif, many_scans, photograph

from univip_mm.io.encoded_image import EncodedImage
from univip_mm.io.images import TOO_MANY_SCANS, UnreadableImageError
from univip_mm.io.jpeg_header import read_segments


def test_read_segments_finds_a_late_orientation():
    image = photograph(30, 40)
    rotated, jpeg = (encode(image=image, exif=exif(x)) for x in (6, 1))
    assert read_segments(jpeg).upright
    assert not read_segments(rotated).upright
    at = rotated.index(b'\xff\xe1')
    length = 2 + int.from_bytes(rotated[at + 2:at + 4], 'big')
    scan = jpeg.rindex(b'\xff\xda')
    late = jpeg[:scan] + rotated[at:at + length] + jpeg[scan:]
    assert not read_segments(late).upright
    assert not read_segments(jpeg[:scan]).upright  # no pixels


@pytest.mark.parametrize('options, single', [
    ({}, True), (dict(mode='L'), True), (dict(mode='CMYK'), True),
    (dict(progressive=True), False)])
def test_read_segments_counts_scans(options, single):
    assert read_segments(encode(**options)).single_scan == single


def test_scans_after_a_complete_scan_are_refused():
    jpeg = encode(image=photograph(30, 40))
    scan = jpeg[jpeg.rindex(b'\xff\xda'):-2]
    with pytest.raises(UnreadableImageError, match=TOO_MANY_SCANS):
        EncodedImage(jpeg[:-2] + 60 * scan + jpeg[-2:]).decode()
    with pytest.raises(UnreadableImageError, match=TOO_MANY_SCANS):
        EncodedImage(many_scans(60))
