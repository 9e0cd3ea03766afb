"""The host of this process. This module imports no other package."""
import os
from importlib.util import find_spec

from .versions import PackageError, check_conflicts, check_min_version

HOSTS = ('mmpretrain', 'mmselfsup')


def is_installed(package: str) -> bool:
    """Return True if a package can be imported.

    A folder of the same name, such as a clone of its repository, does not
    count.
    """
    spec = find_spec(package)
    return spec is not None and spec.origin is not None


def find_host() -> str:
    """Return the name of the host package.

    The environment variable ``UNIVIP_HOST`` selects the host. Without it, the
    host is the first installed package of :data:`HOSTS`.

    Raises:
        PackageError: No host is installed, or ``UNIVIP_HOST`` is not an
            installed host.
    """
    wanted = os.environ.get('UNIVIP_HOST')
    if wanted is None:
        for host in HOSTS:
            if is_installed(host):
                return host
        raise PackageError(
            'univip_mm needs MMPretrain, which is not installed: '
            "'pip install mmpretrain \"mmcv-lite<2.2\"'")
    if wanted not in HOSTS:
        raise PackageError(f"UNIVIP_HOST is '{wanted}', but the hosts are "
                           f'{" and ".join(HOSTS)}: set it to one of them')
    if not is_installed(wanted):
        raise PackageError(f"UNIVIP_HOST is '{wanted}', which is not "
                           f"installed: 'pip install {wanted}', or unset it")
    return wanted


def check_host() -> str:
    """Return the host after a check of the installed packages.

    Only their metadata is read, so this takes milliseconds.

    Raises:
        PackageError: A package is missing or too old, or two packages do not
            work together.
    """
    host = find_host()
    for package, requirement in dict(
            mmengine='mmengine', mmcv='"mmcv-lite<2.2"').items():
        if not is_installed(package):
            raise PackageError(f'univip_mm needs {package}, which is not '
                               f"installed: 'pip install {requirement}'")
    check_min_version('mmengine')
    check_min_version(host)
    check_conflicts(host)
    return host
