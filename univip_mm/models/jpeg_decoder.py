"""Decode the JPEG files of a batch on the training device."""
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional, Union

import torch
from mmengine.logging import print_log
from torch import Tensor

from ..io.encoded_image import EncodedImage
from ..io.images import (
    NO_IMAGE,
    NoReadableImageError,
    UnreadableImageError,
)
from ..utils.text import printable
from .view_cutter import X2, Y2


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


_Result = Union[_Image, UnreadableImageError]
_TRIES = 64  # files; if all fail, nvJPEG is missing


class JpegDecoder:
    """Decoder of JPEG files: nvJPEG on a GPU, otherwise the worker's decoder.

    Files that nvJPEG cannot read are decoded on the CPU and counted. The
    pixels of nvJPEG differ from the CPU's by a few gray levels. nvJPEG does
    not report damage inside a complete file, so only the CPU detects damage.

    A file that the CPU cannot decode either is replaced with the next image
    of the batch, with its boxes. :class:`SkippedImagesHook` reports and counts
    such files.

    Attributes:
        num_files (int): Files of all batches so far.
        num_fallbacks (int): Files that a GPU was to decode, but could not.
        unreadable (dict[str, str]): Files that were replaced: the reason by
            path. Control characters of a path are escaped.
    """

    def __init__(self) -> None:
        self.num_files = self.num_fallbacks = 0
        self.unreadable: dict[str, str] = {}
        self._available = True

    def add_images(self, inputs: dict, device: torch.device,
                   paths: Optional[Sequence[str]] = None) -> dict:
        """Decode the files of a batch, and append them to its pixels.

        Args:
            inputs (dict): ``inputs`` of
                :func:`~univip_mm.datasets.collate_views`, on the CPU. With
                ``files`` and ``lengths``, it is not modified.
            device (torch.device): Device of the result's pixels.
            paths (Sequence[str], optional): Path of each image, to name
                unreadable ones. Defaults to None: each counts anew.

        Returns:
            dict: ``pixels``, ``table`` and ``sizes``, without files.

        Raises:
            NoReadableImageError: No image of the batch can be decoded.
        """
        table = inputs['table'].clone()
        lengths = inputs['lengths']
        rows = [i for i, length in enumerate(lengths) if length]
        files = inputs['files'].split([lengths[i] for i in rows])
        needed = table.numpy()[rows][..., [Y2, X2]].max(axis=1).tolist()
        parts = [inputs['pixels'].to(device, non_blocking=True)]
        base = parts[0].numel()
        errors = {}
        for i, image in zip(rows, self._decode(files, needed, device)):
            if isinstance(image, UnreadableImageError):
                errors[i] = image
                continue
            table[i, :, :4] = torch.tensor(image.layout(base))
            base += image.pixels.numel()
            parts.append(
                image.pixels.reshape(-1).to(device, non_blocking=True))
        if errors:
            self._replace(table, errors, paths)
        return dict(pixels=torch.cat(parts), table=table,
                    sizes=inputs['sizes'])

    def _replace(self, table: Tensor, errors: dict[int, UnreadableImageError],
                 paths: Optional[Sequence[str]]) -> None:
        """Replace the rows of unreadable images with rows of others."""
        readable = [i for i in range(len(table)) if i not in errors]
        for i, error in errors.items():
            name = printable(paths[i]) if paths else (
                f'image {len(self.unreadable) + 1} without img_path')
            if not readable:
                raise NoReadableImageError(
                    f'none of the {len(errors)} images of a batch can be '
                    f"decoded, such as '{name}' ({error}): check the files")
            table[i] = table[min(readable, key=lambda j: (j - i) % len(table))]
            if name not in self.unreadable:
                self.unreadable[name] = error.reason
                print_log(
                    f"skipped the image '{name}' ({error}): replaced with "
                    'another image of its batch', logger='current',
                    level=logging.WARNING)

    def _decode(self, files: Sequence[Tensor],
                needed: Sequence[Sequence[int]],
                device: torch.device) -> list[_Result]:
        self.num_files += len(files)
        if not _is_gpu(device):
            if self.num_files == len(files):
                print_log(
                    "LoadEncodedImage(decode='device') without a GPU: the "
                    'training process decodes all files, which is slow; use '
                    "decode='worker'", logger='current',
                    level=logging.WARNING)
            return [_decode_on_cpu(*x) for x in zip(files, needed)]
        found = self._decode_on_gpu(files, device)
        # A smaller image than the header says would be read past its end.
        found = [
            x if x is not None and len(x) == 3 and x.shape[1] >= height
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
        return [_decode_on_cpu(file, size) if image is None
                else _Image(image, planar=True)
                for file, size, image in zip(files, needed, found)]

    def _decode_on_gpu(self, files: Sequence[Tensor],
                       device: torch.device) -> list[Optional[Tensor]]:
        """Return an image (3, h, w) RGB for each file, or None."""
        if not self._available:
            return [None] * len(files)
        images = _try_nvjpeg(list(files), device)
        if images is None:  # one bad file fails the call
            images = [_try_nvjpeg(x, device) for x in files]
            # Without nvJPEG, do not try each file of each batch.
            if (self.num_files >= _TRIES
                    and self.num_files == self.num_fallbacks + len(files)
                    and all(x is None for x in images)):
                self._available = False
                print_log(
                    'LoadEncodedImage: the GPU could not decode any of the '
                    f'first {self.num_files} JPEG files, so a CPU decodes '
                    'all files from now on', logger='current',
                    level=logging.WARNING)
        return images


def _decode_on_cpu(file: Tensor, needed: Sequence[int]) -> _Result:
    """Decode a file as the worker does; return the error of a bad file.

    ``needed`` is the height and width that the views need.
    """
    try:
        pixels = EncodedImage(file.numpy().tobytes()).decode()
    except UnreadableImageError as e:
        return e
    height, width = pixels.shape[:2]
    if height < needed[0] or width < needed[1]:
        return UnreadableImageError(
            NO_IMAGE, f'{width} x {height}, smaller than its header says')
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
