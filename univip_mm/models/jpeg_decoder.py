"""Decode the JPEG files of a batch on the training device."""
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

import numpy as np
import simplejpeg
import torch
from mmengine.logging import print_log
from torch import Tensor

from ..io.encoded_image import EncodedImage
from ..io.images import UnreadableImageError


class _Image(NamedTuple):
    """Decoded image: planar RGB (3, h, w), otherwise BGR (h, w, 3)."""
    pixels: Tensor
    planar: bool

    def layout(self, base: int) -> list[int]:
        """Return position and steps (row, column, channel) in BGR order."""
        if not self.planar:
            return [base, self.pixels.shape[1] * 3, 3, 1]
        _, height, width = self.pixels.shape
        return [base + 2 * height * width, width, 1, -height * width]


class JpegDecoder:
    """Decoder of JPEG files: nvJPEG on a GPU, otherwise the worker's decoder.

    Files that nvJPEG cannot read are decoded on the CPU and counted. The
    pixels of nvJPEG differ from the CPU's by a few gray levels.

    Attributes:
        num_files (int): Files decoded so far.
        num_fallbacks (int): Files that a GPU was to decode, but a CPU did.
        num_damaged (int): Files with damage inside, used as far as decoded.
    """

    def __init__(self) -> None:
        self.num_files = self.num_fallbacks = self.num_damaged = 0
        self._available = True

    def add_images(self, inputs: dict, device: torch.device) -> dict:
        """Decode the files of a batch, and append them to its pixels.

        Args:
            inputs (dict): ``inputs`` of
                :func:`~univip_mm.datasets.collate_views`, on the CPU. With
                ``files`` and ``lengths``, it is not modified.
            device (torch.device): Device of the result's pixels.

        Returns:
            dict: ``pixels``, ``table`` and ``sizes``, without files.

        Raises:
            UnreadableImageError: A file cannot be decoded at all.
        """
        table = inputs['table'].clone()
        lengths = inputs['lengths']
        rows = [i for i, length in enumerate(lengths) if length]
        files = inputs['files'].split([lengths[i] for i in rows])
        needed = [(int(table[i, :, 7].max()), int(table[i, :, 6].max()))
                  for i in rows]
        parts = [inputs['pixels'].to(device, non_blocking=True)]
        base = parts[0].numel()
        for i, image in zip(rows, self._decode(files, needed, device)):
            table[i, :, :4] = torch.tensor(image.layout(base))
            base += image.pixels.numel()
            parts.append(
                image.pixels.reshape(-1).to(device, non_blocking=True))
        return dict(pixels=torch.cat(parts), table=table,
                    sizes=inputs['sizes'])

    def _decode(self, files: Sequence[Tensor],
                needed: Sequence[tuple[int, int]],
                device: torch.device) -> list['_Image']:
        self.num_files += len(files)
        if not _is_gpu(device):
            return [self._decode_on_cpu(x) for x in files]
        found = self._decode_on_gpu(files, device)
        # A smaller image than the header says would be read past its end.
        found = [
            x if x is not None and x.shape[1] >= height
            and x.shape[2] >= width else None
            for x, (height, width) in zip(found, needed)]
        failed = sum(x is None for x in found)
        if failed and not self.num_fallbacks:
            print_log(
                f'LoadEncodedImage: the GPU could not decode {failed} of '
                f'{len(files)} JPEG files. A CPU decodes such files, in the '
                'training process, which is slower. If all files fail, '
                'install a torchvision with nvJPEG, or set '
                "LoadEncodedImage(decode='worker')",
                logger='current', level=logging.WARNING)
        self.num_fallbacks += failed
        return [self._decode_on_cpu(file) if image is None
                else _Image(image, planar=True)
                for file, image in zip(files, found)]

    def _decode_on_gpu(self, files: Sequence[Tensor],
                       device: torch.device) -> list[Optional[Tensor]]:
        """Return an image (3, h, w) RGB for each file, or None."""
        if not self._available:
            return [None] * len(files)
        images = _try_nvjpeg(list(files), device)
        if images is None:  # one bad file fails the call
            images = [_try_nvjpeg(x, device) for x in files]
            # Without nvJPEG, do not try each file of each batch.
            self._available = any(x is not None for x in images)
        return images

    def _decode_on_cpu(self, file: Tensor) -> '_Image':
        data = file.numpy().tobytes()
        try:
            pixels = EncodedImage(data).decode()
        except UnreadableImageError as e:
            # Too late to choose another image, as a worker does.
            self.num_damaged += 1
            pixels = _decode_damaged(data, e)
        return _Image(torch.from_numpy(pixels), planar=False)


def _is_gpu(device: torch.device) -> bool:
    return device.type == 'cuda'


def _try_nvjpeg(files: Any, device: torch.device) -> Any:
    """Decode one file or a list of files by nvJPEG; return None on errors."""
    try:
        from torchvision.io import ImageReadMode, decode_jpeg
        return decode_jpeg(files, mode=ImageReadMode.RGB, device=device)
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception:  # errors differ between versions of torchvision
        return None


def _decode_damaged(data: bytes, error: UnreadableImageError) -> np.ndarray:
    try:
        return simplejpeg.decode_jpeg(data, 'BGR', strict=False)
    except Exception:  # any error of a parser
        raise UnreadableImageError(
            error.reason, "a file that the worker did not decode; set "
            "LoadEncodedImage(decode='worker'), which skips such files"
        ) from error
