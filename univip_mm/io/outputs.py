"""Checks of output paths, before any work."""
import os
import os.path as osp
import secrets

from .atomic import PathLike


def check_output_file(path: PathLike, option: str) -> None:
    """Raise ValueError unless a file can be written to ``path``.

    The folder is created. The check writes and removes a temporary file with
    a name as long as that of :func:`~univip_mm.io.atomic.atomic_write`. An
    existing device or pipe, such as /dev/null, is not checked.

    Args:
        path (str or PathLike): The file. An existing file is not changed.
        option (str): Name of the option that sets it, for the message.
    """
    path = os.fspath(path)
    try:
        if not path or path.endswith('/') or osp.isdir(path):
            raise OSError(0, 'a file name is needed, not a folder')
        if osp.exists(path) and not osp.isfile(path):
            return
        folder, name = osp.split(path)
        _write_and_remove(folder, f'.{name}')
    except (OSError, ValueError) as e:
        raise _error(path, option, e) from None


def check_output_folder(path: PathLike, option: str) -> None:
    """Raise ValueError unless files can be written below ``path``.

    The folder is created. The arguments are as in :func:`check_output_file`.
    """
    path = os.fspath(path)
    try:
        if not path:
            raise OSError(0, 'the name is empty')
        _write_and_remove(path, '.check')
    except (OSError, ValueError) as e:
        raise _error(path, option, e) from None


def _write_and_remove(folder: str, name: str) -> None:
    os.makedirs(folder or '.', exist_ok=True)
    path = osp.join(folder, f'{name}.{secrets.token_hex(4)}.part')
    try:
        with open(path, 'xb') as file:
            file.write(bytes(4096))  # a full disk takes the name only
    finally:
        if osp.lexists(path):
            os.unlink(path)


def _error(path: str, option: str, error: Exception) -> ValueError:
    # ValueError: a zero byte in the name.
    reason = getattr(error, 'strerror', None) or str(error)
    if isinstance(error, FileExistsError):
        reason = 'a file or a broken link is in the place of a folder'
    return ValueError(
        f"cannot write {option} '{path}' ({reason}): check the path, its "
        'permissions and the disk, or choose another path')
