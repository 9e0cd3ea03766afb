"""Checks of the installed package versions.

They read metadata only, so they also work if a package cannot be imported.
"""
from collections.abc import Iterator
from importlib import metadata
from typing import NamedTuple, Optional

from packaging.version import Version

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
    hosts: tuple = ()  # hosts with the conflict; empty: all


# First PyTorch whose `weights_only` reader runs no code in a file, and first
# one without a known memory error in it.
SAFE_READER, SOUND_READER = '2.6', '2.10'

# docs/versions.md describes the failures.
CONFLICTS = (
    Conflict('numpy', '2', 'torch', '2.3', '"numpy<2"'),
    Conflict('yapf', '0.40.2', 'mmengine', '0.8.5', '"yapf<0.40.2"'),
    Conflict('transformers', '4.52', 'mmpretrain', None,
             '"transformers<4.52"', ('mmpretrain', )),
    # MMPretrain imports mmdet if it is installed.
    Conflict('mmcv-lite', '2.2', 'mmdet', None, '"mmcv-lite<2.2"'),
    Conflict('mmcv', '2.2', 'mmdet', None, '"mmcv<2.2"'),
)


class PackageError(RuntimeError):
    """Installed packages that do not work, with the command that helps.

    This is no ImportError: MMEngine answers an ImportError of a module in
    ``custom_imports`` with two more errors, and the last one blames the path.
    """


def version_of(package: str) -> Optional[Version]:
    """Return the version in a package's metadata, or None."""
    try:
        return Version(metadata.version(package))
    except metadata.PackageNotFoundError:
        return None


def check_min_version(package: str) -> None:
    """Raise PackageError if a package of MIN_VERSIONS is too old.

    Packages without pip metadata (source trees) are accepted.
    """
    installed = version_of(package)
    required = MIN_VERSIONS[package]
    if installed is not None and installed < Version(required):
        raise PackageError(
            f'univip_mm needs {package} >= {required}, but {installed} is '
            f"installed: 'pip install \"{package}>={required}\"'")


def find_conflicts(host: str = 'mmpretrain') -> Iterator[str]:
    """Yield a message for each pair of packages that do not work together.

    Packages without pip metadata are skipped.
    """
    for package, since, other, required, fix, hosts in CONFLICTS:
        version, other_version = version_of(package), version_of(other)
        if version is None or other_version is None or (
                hosts and host not in hosts) or version < Version(since):
            continue
        if required is None:
            yield (f'{other} {other_version} cannot be imported with '
                   f"{package} {version}: 'pip install {fix}'")
        elif other_version < Version(required):
            yield (f'univip_mm needs {other} >= {required} with {package} '
                   f'{version}, but {other_version} is installed: '
                   f"'pip install {fix}', or a newer {other}")


def check_conflicts(host: str = 'mmpretrain') -> None:
    """Raise PackageError if two installed packages do not work together.

    Call this function before importing any of the packages.
    """
    for message in find_conflicts(host):
        raise PackageError(message)


def reader_refusal(torch_version: str) -> str:
    """Return why this PyTorch cannot read checkpoints, or ''."""
    if Version(torch_version) >= Version(SAFE_READER):
        return ''
    return (f'PyTorch {torch_version} is installed, and before {SAFE_READER} '
            'a checkpoint can run code while it is read (CVE-2025-32434): '
            f"'pip install \"torch>={SAFE_READER}\"'")


def reader_fault(torch_version: str) -> str:
    """Return a warning about the reader of this PyTorch, or ''."""
    if Version(torch_version) >= Version(SOUND_READER):
        return ''
    return (f'PyTorch {torch_version} is installed, and before {SOUND_READER} '
            'a crafted checkpoint can corrupt memory (CVE-2026-24747): read '
            'only files of people you trust, or '
            f"'pip install \"torch>={SOUND_READER}\"'")
