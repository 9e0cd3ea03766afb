"""Pairs of packages that are installed beside each other and do not work."""
from importlib import metadata

from mmengine.utils import digit_version

# If the first is at least this version, the second has to be at least that,
# None where none is known that goes with it; the last is what else can be
# done. docs/versions.md says what was seen.
PAIRS = (
    ('numpy', '2', 'torch', '2.3', '"numpy<2"'),
    ('yapf', '0.40.2', 'mmengine', '0.8.5', '"yapf<0.40.2"'),
    ('transformers', '4.52', 'mmpretrain', None, '"transformers<4.52"'),
)


def check_pairs(host: str = 'mmpretrain') -> None:
    """Whether the installed packages go with each other. To be called before
    any of them is imported. What pip did not install is not looked at, and
    what cannot be imported is only where it is the host.

    Raises:
        ImportError: Two of them do not.
    """
    for newer, since, older, required, instead in PAIRS:
        try:
            versions = [metadata.version(name) for name in (newer, older)]
        except metadata.PackageNotFoundError:
            continue
        found, lacking = map(digit_version, versions)
        if found < digit_version(since):
            continue
        if required is None and older == host:
            raise ImportError(
                f'{older} {versions[1]} cannot be imported beside {newer} '
                f"{versions[0]}: 'pip install {instead}'")
        if required is not None and lacking < digit_version(required):
            raise ImportError(
                f'univip_mm needs {older} >= {required} beside {newer} '
                f'{versions[0]}, but {versions[1]} is installed: '
                f"'pip install {instead}', or a newer {older}")
