"""Atomic writes: a file is either complete or absent."""
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

    Other processes see either the old file or the complete new file. If the
    block fails, the old file stays and the temporary file,
    ``.NAME.*.part`` in the same folder, is removed. The folder is created.
    ``mode`` is 'wb' or 'w' (UTF-8).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # mkstemp never opens an existing file or link.
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
    """Sync ``part`` to the disk, then rename it to ``path``."""
    with open(part, 'rb+') as file:
        os.fsync(file.fileno())
    os.replace(part, path)


def _umask() -> int:
    # Setting the mask is the only way to read it.
    mask = os.umask(0)
    os.umask(mask)
    return mask
