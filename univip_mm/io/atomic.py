"""Atomic writes: a file is either complete or absent."""
import errno
import os
import secrets
import stat
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
    A device or pipe, such as /dev/null, is written to and not replaced.
    ``mode`` is 'wb' or 'w' (UTF-8).
    """
    path = Path(path)
    encoding = None if 'b' in mode else 'utf-8'
    if path.exists() and not path.is_file():
        with open(path, mode, encoding=encoding) as file:
            yield file
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'.{path.name}.{secrets.token_hex(4)}.part')
    # Mode x never opens an existing file or link. In contrast to mkstemp, the
    # permissions are those of any new file.
    file = open(part, mode.replace('w', 'x'), encoding=encoding)
    try:
        with file:
            yield file
        replace_durably(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def open_to_append(path: PathLike) -> IO[str]:
    """Open a regular file to read and to append; create it if it is missing.

    In contrast to a plain ``open``, the call does not follow a link at
    ``path`` to another file, and does not wait for the reader of a pipe.

    Raises:
        OSError: The path is not a regular file, or cannot be opened.
    """
    return open(path, 'a+', encoding='utf-8', opener=_open_regular)


def _open_regular(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, 'not a regular file', path)
    return descriptor


def replace_durably(part: PathLike, path: PathLike) -> None:
    """Sync ``part`` to the disk, then rename it to ``path``."""
    with open(part, 'rb+') as file:
        os.fsync(file.fileno())
    os.replace(part, path)
