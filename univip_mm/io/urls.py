"""Paths that are URLs, such as ``http://host/a.jpg`` and ``s3://b/a.jpg``."""
import os

from .atomic import PathLike


def is_url(path: PathLike) -> bool:
    """Return True for a path that starts with a scheme."""
    return '://' in os.fspath(path)


def join_path(folder: str, path: PathLike) -> str:
    """Join a folder and a path; a URL is complete, as an absolute path is."""
    return os.fspath(path) if is_url(path) else os.path.join(folder, path)


def check_not_url(path: PathLike, option: str,
                  cure: str = 'copy the data there') -> None:
    """Raise ValueError if an option that needs a local file has a URL."""
    if is_url(path):
        raise ValueError(f"{option} is the URL '{path}', but must be a path "
                         f'on the local disk: {cure}')
