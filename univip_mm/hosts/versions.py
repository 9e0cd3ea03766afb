"""Checks of the installed package versions."""
from importlib import metadata
from typing import NamedTuple, Optional

from mmengine.utils import digit_version

# First supported versions. Older hosts (0.x) are built on mmcv 1 and have
# other names.
MIN_VERSIONS = dict(mmengine='0.8.3', mmpretrain='1.0.0', mmselfsup='1.0.0')


class Conflict(NamedTuple):
    """A package that breaks another package."""
    package: str
    since: str  # first version of `package` that breaks `other`
    other: str
    required: Optional[str]  # first version of `other` that works, if any
    fix: str  # pip requirement that solves the conflict


# First PyTorch whose `weights_only` reader runs no code in a file, and first
# one without a known memory error in it.
SAFE_READER, SOUND_READER = '2.6', '2.10'

# docs/versions.md describes the failures.
CONFLICTS = (
    Conflict('numpy', '2', 'torch', '2.3', '"numpy<2"'),
    Conflict('yapf', '0.40.2', 'mmengine', '0.8.5', '"yapf<0.40.2"'),
    Conflict('transformers', '4.52', 'mmpretrain', None,
             '"transformers<4.52"'),
)


def check_min_version(package: str) -> None:
    """Raise ImportError if a package of MIN_VERSIONS is too old.

    Packages without pip metadata (source trees) are accepted.
    """
    try:
        installed = metadata.version(package)
    except metadata.PackageNotFoundError:
        return
    required = MIN_VERSIONS[package]
    if digit_version(installed) < digit_version(required):
        raise ImportError(
            f'univip_mm needs {package} >= {required}, but {installed} is '
            f"installed: 'pip install \"{package}>={required}\"'")


def check_conflicts(host: str = 'mmpretrain') -> None:
    """Raise ImportError if two installed packages do not work together.

    Call this function before importing any of the packages. Packages without
    pip metadata are skipped. A conflict without a working version of
    ``other`` counts only if ``other`` is the host.
    """
    for package, since, other, required, fix in CONFLICTS:
        try:
            version = metadata.version(package)
            other_version = metadata.version(other)
        except metadata.PackageNotFoundError:
            continue
        if digit_version(version) < digit_version(since):
            continue
        if required is None:
            if other == host:
                raise ImportError(
                    f'{other} {other_version} cannot be imported with '
                    f"{package} {version}: 'pip install {fix}'")
        elif digit_version(other_version) < digit_version(required):
            raise ImportError(
                f'univip_mm needs {other} >= {required} with {package} '
                f'{version}, but {other_version} is installed: '
                f"'pip install {fix}', or a newer {other}")


def reader_refusal(torch_version: str) -> str:
    """Return why this PyTorch cannot read checkpoints, or ''."""
    if digit_version(torch_version) >= digit_version(SAFE_READER):
        return ''
    return (f'PyTorch {torch_version} is installed, and before {SAFE_READER} '
            'a checkpoint can run code while it is read (CVE-2025-32434): '
            f"'pip install \"torch>={SAFE_READER}\"'")


def reader_fault(torch_version: str) -> str:
    """Return a warning about the reader of this PyTorch, or ''."""
    if digit_version(torch_version) >= digit_version(SOUND_READER):
        return ''
    return (f'PyTorch {torch_version} is installed, and before {SOUND_READER} '
            'a crafted checkpoint can corrupt memory (CVE-2026-24747): read '
            'only files of people you trust, or '
            f"'pip install \"torch>={SOUND_READER}\"'")
