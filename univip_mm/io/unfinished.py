"""Folders of unfinished work, at a place where the user can have files."""
import errno
from collections.abc import Iterable
from pathlib import Path


def claim_folder(folder: Path, marker: str, what: str) -> None:
    """Create a folder for unfinished work, or check that it is one.

    Args:
        folder (Path): The folder.
        marker (str): Name of the file that each such folder has.
        what (str): The work, for messages.

    Raises:
        ValueError: The path is a link or a file, or the folder has other
            files and no marker, so it belongs to the user.
    """
    if folder.is_symlink() or folder.is_file():
        raise ValueError(f"'{folder}' is a link or a file, but must be a "
                         f'folder of {what}: remove it, or choose another '
                         '--out')
    folder.mkdir(parents=True, exist_ok=True)
    names = {path.name for path in folder.iterdir()}
    if marker not in names and not all(
            name.startswith(f'.{marker}.') for name in names):  # of a kill
        raise ValueError(f"'{folder}' has other files than those of {what}: "
                         'move that folder, or choose another --out')


def remove_files(folder: Path, patterns: Iterable[str]) -> None:
    """Remove the files of finished work, then the folder if it is empty.

    Args:
        folder (Path): The folder.
        patterns (Iterable[str]): Names of the files, as for ``Path.glob``,
            with the marker of :func:`claim_folder` last.
    """
    for pattern in patterns:
        for path in folder.glob(pattern):
            if path.is_symlink() or not path.is_dir():
                path.unlink(missing_ok=True)
    try:
        folder.rmdir()
    except OSError as e:
        if e.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
