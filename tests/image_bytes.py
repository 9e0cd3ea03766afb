"""Image files in memory, for tests of decoders."""
import io

import numpy as np
from PIL import Image


def photograph(height=300, width=400):
    """Return a smooth image with edges, (H, W, 3) uint8, RGB."""
    small = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    return np.array(Image.fromarray(small).resize((width, height)))


def encode(format='JPEG', mode='RGB', image=None, **options):
    """Encode an image, by default :func:`photograph`, with Pillow."""
    image = photograph() if image is None else image
    file = io.BytesIO()
    Image.fromarray(image).convert(mode).save(file, format, **options)
    return file.getvalue()


def noisy_photograph():
    """Return a photograph of 60 x 80 pixels whose files have many bytes."""
    noise = np.random.default_rng(1).integers(-20, 20, (60, 80, 3))
    return np.clip(photograph(60, 80) + noise, 0, 255).astype(np.uint8)


def zero_block(data, start, length=512):
    """Overwrite a block of a file with zeros, as a bad disk does."""
    end = min(start + length, len(data))
    return data[:start] + bytes(end - start) + data[end:]


def exif(orientation):
    """Return an EXIF with an orientation of 1 to 8; 6 rotates by 90°."""
    content = Image.Exif()
    content[0x0112] = orientation
    return content


def add_stray_byte(jpeg):
    """Insert zeros before the end marker of a JPEG."""
    return jpeg[:-2] + b'\0\0\0' + jpeg[-2:]


def many_scans(number):
    """Return a progressive JPEG with a number of scans, 6 or more."""
    flat = np.full((160, 200, 3), 90, np.uint8)
    jpeg = encode(mode='L', image=flat, progressive=True)
    first = jpeg.rindex(b'\xff\xda')
    return jpeg[:-2] + (number - 6) * jpeg[first:-2] + jpeg[-2:]
