"""Atomic writes: a file is there whole, or not at all."""
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Union

PathLike = Union[str, os.PathLike]


@contextmanager
def atomic_write(path: PathLike, mode: str = 'wb') -> Iterator[IO]:
    """Open a temporary file that replaces ``path`` when the block succeeds.

    Other processes see either the old file or the whole new one. After an
    error the old file is still there and the temporary file is gone.

    Args:
        path (str or PathLike): File to write. Its folder is created.
        mode (str): 'wb' or 'w' (UTF-8). Defaults to 'wb'.

    Yields:
        IO: The temporary file, ``.NAME.*.part`` in the folder of ``path``.

    Raises:
        OSError: The file cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # mkstemp never opens a file or a link that somebody else has put there.
    descriptor, part = tempfile.mkstemp('.part', f'.{path.name}.', path.parent)
    try:
        with open(descriptor, mode,
                  encoding=None if 'b' in mode else 'utf-8') as file:
            os.fchmod(descriptor, 0o666 & ~_umask())
            yield file
        replace_durably(part, path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def replace_durably(part: PathLike, path: PathLike) -> None:
    """Write ``part`` through to the disk, then rename it to ``path``.

    Raises:
        OSError: The data cannot be written or the file cannot be renamed.
    """
    with open(part, 'rb+') as file:
        os.fsync(file.fileno())
    os.replace(part, path)


def _umask() -> int:
    # The only way to read the mask is to set it.
    mask = os.umask(0)
    os.umask(mask)
    return mask
