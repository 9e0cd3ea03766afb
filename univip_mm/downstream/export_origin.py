"""Record of the checkpoint that an exported backbone is from."""
import hashlib
from pathlib import Path

from ..version import __version__


def origin_of(path: str, content: dict, branch: str) -> dict:
    """Return the origin of a backbone.

    It has the file name and the SHA-256 of the checkpoint, the branch, the
    epoch, the iteration and the version of this package. A backbone file of
    format 'mm' keeps its own origin.

    Args:
        path (str): The checkpoint.
        content (dict): Its content.
        branch (str): 'online' or 'target'.
    """
    if is_extracted(content):
        return dict(content['meta'])
    meta = content.get('meta')
    meta = meta if isinstance(meta, dict) else {}
    return dict(
        source=Path(path).name, sha256=_sha256(path), branch=branch,
        epoch=meta.get('epoch'), iter=meta.get('iter'), univip_mm=__version__)


def is_extracted(content: dict) -> bool:
    """Return True for the content of a backbone file of format 'mm'."""
    meta = content.get('meta')
    return (isinstance(meta, dict) and 'state_dict' in content
            and {'source', 'sha256', 'branch', 'univip_mm'} <= meta.keys())


def _sha256(path: str) -> str:
    sha256 = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(2**24):
            sha256.update(block)
    return sha256.hexdigest()
