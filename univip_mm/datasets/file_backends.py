"""File backends of MMEngine: images on a web server, in LMDB, and so on."""
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Optional

from mmcv.transforms import LoadImageFromFile
from mmengine.fileio import get_file_backend
from mmengine.fileio.backends import backends, prefix_to_backends

from ..io.archive import has_archive_name, split_path
from ..io.urls import is_url

# How to use a json or a proposal file whose path is a URL.
COPY_FILE = ('copy the file there, and set its absolute path if data_root is '
             'a URL')
SAMPLES = 3  # images to try; a web server may answer slowly


def backend_args_of(loader: Any) -> Optional[dict]:
    """Return the arguments of a loader's file backend, or None."""
    return (getattr(loader, 'backend_args', None)
            or getattr(loader, 'file_client_args', None))


def is_local(path: str, backend_args: Optional[dict]) -> bool:
    """Return True if a path is read from the local disk."""
    backend = (backend_args or {}).get('backend', 'local')
    return backend in ('local', 'disk') and not is_url(path)


def check_loader(folder: str, transforms: Sequence, cure: str) -> None:
    """Raise ValueError if the host's loader would have to read an archive."""
    if split_path(folder) and any(isinstance(x, LoadImageFromFile)
                                  for x in transforms):
        raise ValueError(f"LoadImageFromFile cannot read the archive "
                         f"'{folder}': {cure}")


def check_file_backend(paths: Sequence[str],
                       backend_args: Optional[dict]) -> None:
    """Read one of the first images, to find a wrong backend early.

    Raises:
        ValueError: The file backend does not exist, or cannot be built.
        FileNotFoundError: None of the first ``SAMPLES`` images can be read.
    """
    args = backend_args or {}
    name = args.get('backend', paths[0].partition('://')[0].split(':')[-1])
    known = backends if 'backend' in args else prefix_to_backends
    if name not in known:
        names = ', '.join(sorted(filter(None, known)))
        kind = 'file backend' if 'backend' in args else 'URL scheme'
        raise ValueError(
            f"'{paths[0]}' needs the {kind} '{name}', but MMEngine has only "
            f'{names}: use one of these, or register it with '
            'mmengine.fileio.register_backend')
    if name == 'lmdb' and find_spec(name) is None:
        # MMEngine's class would fail in its __del__ too.
        raise ValueError(
            f"the file backend '{name}' of '{paths[0]}' cannot be used: pip "
            'install lmdb')
    try:
        # Not the instance that the loader uses: LMDB must not be open when
        # the worker processes start.
        backend = get_file_backend(paths[0], backend_args=backend_args)
    except Exception as e:  # each file backend has its own errors
        raise ValueError(
            f"the file backend '{name}' of '{paths[0]}' cannot be used "
            f'({_describe(e)}): install its package, or correct backend_args '
            'of the loader') from None
    reasons = []
    for path in paths[:SAMPLES]:
        try:
            if backend.get(path) is not None:
                return
            reasons.append('there is no such entry')
        except Exception as e:  # each file backend has its own errors
            reasons.append(_describe(e))
    cure = ('check data_prefix.img_path, backend_args of the loader, and the '
            'network')
    if has_archive_name(paths[0]):
        cure = 'an archive must be on the local disk, so copy it there'
    raise FileNotFoundError(
        f"none of the first {len(reasons)} images can be read with the file "
        f"backend '{name}', such as '{paths[0]}' ({reasons[0]}): {cure}")


def _describe(error: Exception) -> str:
    return ' '.join(f'{type(error).__name__}: {error}'.split())
