"""Reading of regular files only, and of JSON."""
import errno
import json
import os
import stat
from typing import IO, Any, Union

from .atomic import PathLike


class NotRegularError(OSError):
    """Error of a path that is a pipe, a device, a socket or a folder."""

    def __init__(self, path: PathLike) -> None:
        super().__init__(errno.EINVAL, 'not a regular file', str(path))


def open_regular(path: PathLike, follow: bool = True) -> IO[bytes]:
    """Open a regular file for reading; the call never blocks.

    A plain ``open`` of a pipe waits for a writer, and a device may have no
    end. With ``follow=False``, a link is an error as well.

    Raises:
        NotRegularError: The path is not a regular file.
        OSError: The file cannot be opened, or no file can have this name.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    if not follow:
        flags |= os.O_NOFOLLOW
    try:
        file = open(path, 'rb', opener=lambda name, _: os.open(name, flags))
    except OSError as e:
        if e.errno in (errno.EISDIR, errno.ENXIO):  # ENXIO: a socket
            raise NotRegularError(path) from None
        raise
    except ValueError as e:  # a zero byte or a lone surrogate
        raise OSError(errno.EINVAL, f'invalid file name: {e}',
                      str(path)) from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise NotRegularError(path)
    return file


def parse_json(text: Union[str, bytes]) -> Any:
    """Parse JSON; raise ValueError if it is damaged or nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError('JSON nested too deeply') from None


def read_json(path: PathLike, follow: bool = True) -> Any:
    """Read a JSON file with :func:`open_regular` and :func:`parse_json`."""
    with open_regular(path, follow) as file:
        return parse_json(file.read())
