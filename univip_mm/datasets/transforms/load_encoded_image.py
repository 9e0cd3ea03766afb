"""Transform that reads an image file without decoding the pixels."""
import logging
import os
from collections.abc import Sequence
from typing import Callable, Optional, Union

from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmengine.fileio import get
from mmengine.logging import print_log

from ...io.encoded_image import EncodedImage
from ...io.images import (
    MISSING,
    NOT_READ,
    UnreadableImageError,
    check_before_decoding,
    read_bytes,
    reason_of,
)
from ...io.pixel_cache import PixelCache, is_source_of
from ...registry import TRANSFORMS
from ...utils.text import printable
from ..file_backends import backend_args_of, is_local


@TRANSFORMS.register_module()
class LoadEncodedImage(BaseTransform):
    """Transform that reads an image file; ``OverlapSceneCrop`` decodes it.

    Use it instead of the host's ``LoadImageFromFile`` before
    :class:`OverlapSceneCrop`. With the defaults, the pixels are the same and
    loading takes less time: see ``docs/performance.md``.

    Required key: ``img_path``. Added keys: ``img`` (:class:`EncodedImage`),
    ``img_shape`` and ``ori_shape``, (H, W).

    Args:
        reduce (bool): Decode a JPEG at 4/8 of its size or less if no view
            needs more pixels. Saves time for photographs much larger than the
            views. Defaults to False.
        fast_dct (bool): Use libjpeg's faster, less exact integer transform.
            Defaults to False.
        backend_args (dict, optional): Arguments of the file backend, as in
            ``LoadImageFromFile``. Defaults to None.
        cache (str or Sequence[str or None], optional): Pixel cache from
            ``tools/cache_pixels.py``, one for each ``ann_file`` of the data
            set, or None. The path is used without ``data_root``, and '~' is
            the home folder.
            Images that are not in a cache are read from their files, and so
            are all images of a cache that is written over. Required keys:
            ``img_id``, and ``source``, the number of the ``ann_file``, if
            there are several. Defaults to None.
        decode (str): 'worker', or 'device' to let the training device decode
            plain JPEGs, with ``OverlapSceneCrop(cut='device')``. The worker
            still decodes other files, and uses ``cache``. The pixels of a GPU
            differ by a few gray levels, and a GPU does not detect damage
            inside a complete file. Defaults to 'worker'.

    Attributes:
        caches (list[PixelCache or None]): The caches.

    Raises:
        UnreadableImageError: The file cannot be read, is not regular, or is
            not an image.
        ValueError: ``decode`` is unknown, or ``cache`` is no path or damaged;
            or one of both is used together with ``reduce`` or ``fast_dct``.
    """

    def __init__(self, reduce: bool = False, fast_dct: bool = False,
                 backend_args: Optional[dict] = None,
                 cache: Union[str, Sequence[str], None] = None,
                 decode: str = 'worker') -> None:
        if cache is not None and (reduce or fast_dct):
            raise ValueError(
                'LoadEncodedImage: a cache has the exact pixels at full size, '
                'which reduce and fast_dct would change: remove these '
                'options, or remove cache')
        if decode not in ('worker', 'device'):
            raise ValueError(f"LoadEncodedImage: decode is '{decode}', but "
                             "must be 'worker' or 'device'")
        if decode == 'device' and (reduce or fast_dct):
            raise ValueError(
                "LoadEncodedImage: decode='device' has no reduce and no "
                "fast_dct: remove these options, or use decode='worker'")
        self.caches = [x and PixelCache(os.path.expanduser(x))
                       for x in _paths_of(cache)]
        self.decode = decode
        self.reduce = reduce
        self.fast_dct = fast_dct
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        """Find the pixels in the cache, or read the file and its size."""
        image = self._find_cached(results) if self.caches else None
        if image is None:
            try:
                data = _read(results['img_path'], self.backend_args)
            except OSError as e:
                raise UnreadableImageError(reason_of(e), str(e)) from e
            image = EncodedImage(data, self.reduce, self.fast_dct,
                                 for_device=self.decode == 'device')
        size = image.shape[:2]
        results.update(img=image, img_shape=size, ori_shape=size)
        return results

    def _find_cached(self, results: dict) -> Optional[EncodedImage]:
        """Return the cached image, or None if its file has to be read.

        The file of an image that is missing or changed is read, so that it is
        reported or decoded as without a cache.
        """
        source = results.get('source', 0)
        cache = self.caches[source]
        if cache is None:
            return None
        try:
            if cache.has_changed():
                raise ValueError(f"the pixel cache '{cache.path}' was written "
                                 'over while in use')
            entry = cache.entry(results['img_id'])
            if entry is None or not is_source_of(entry, results['img_path']):
                return None
            return EncodedImage.of_pixels(cache.pixels(entry))
        except (OSError, ValueError) as e:  # since the check at the start
            self.caches[source] = None
            print_log(
                f'{printable(e)}. This process reads the image files from now '
                'on; start the training again to use a cache',
                logger='current', level=logging.WARNING)
            return None

    def __repr__(self) -> str:
        return (f'{type(self).__name__}(reduce={self.reduce}, '
                f"fast_dct={self.fast_dct}, decode='{self.decode}', "
                f'cache={[getattr(x, "path", None) for x in self.caches]})')


def _paths_of(cache: Union[str, Sequence[Optional[str]], None]
              ) -> Sequence[Optional[str]]:
    """Return the path of each cache, or None."""
    if cache is None:
        return ()
    paths = [cache] if isinstance(cache, (str, os.PathLike)) else cache
    if not (isinstance(paths, (list, tuple)) and paths and all(
            x is None or x and isinstance(x, (str, os.PathLike))
            for x in paths)):
        raise ValueError(
            f'LoadEncodedImage: cache is {cache!r}, but must be the path of a '
            'pixel cache, or a list with a path or None for each ann_file')
    return paths


def check_local_file(transform: Callable, path: str) -> None:
    """Check an image before the host's ``LoadImageFromFile`` reads it.

    The host's loader would wait at a pipe for ever, and has no limits. Other
    transforms, and files of other backends than the local disk, pass.

    Raises:
        OSError: The file is missing, not regular, or cannot be read.
        UnreadableImageError: The file is too large to be decoded.
    """
    if isinstance(transform, LoadImageFromFile):
        if is_local(path, backend_args_of(transform)):
            check_before_decoding(read_bytes(path))


def _read(path: str, backend_args: Optional[dict]) -> bytes:
    if is_local(path, backend_args):
        return read_bytes(path)
    try:
        data = get(path, backend_args=backend_args)
    except Exception as e:  # each file backend has its own errors
        raise UnreadableImageError(
            NOT_READ, f'{type(e).__name__}: {e}') from e
    if data is None:  # LMDB
        raise UnreadableImageError(MISSING)
    return data
