"""The packages whose configs and tools run the benchmarks."""
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Optional

from mmengine.utils import digit_version

# What each needs beside itself to be imported.
HOSTS = dict(
    mmdet='mmdet==3.3.0',
    mmseg='mmsegmentation==1.2.2 ftfy regex prettytable',
    mmpretrain='mmpretrain==1.2.0')
TOOLS = ('train', 'test')
# mmpretrain does without mmcv's operators.
NEED_OPERATORS = ('mmdet', 'mmseg')
# From which version of mmcv on their imports refuse it.
TOO_NEW = '2.2.0'
CURE = ("'pip uninstall mmcv-lite mmcv', then 'MMCV_WITH_OPS=1 pip install "
        "--no-build-isolation mmcv==2.1.0', or take the environment that "
        "'make test-downstream' builds")


def check_host(host: str) -> None:
    """Whether a package is installed, with what it needs.

    Raises:
        ValueError: It is not; or mmcv-lite stands in the place of mmcv or
            beside it, or mmcv is too new.
    """
    if host not in HOSTS:
        raise ValueError(f"there is no host '{host}': choose one of "
                         f'{", ".join(HOSTS)}')
    if find_spec(host) is None:
        raise ValueError(
            f"{host} is not installed: 'pip install {HOSTS[host]}', or take "
            "the environment that 'make test-downstream' builds")
    if host not in NEED_OPERATORS:
        return
    if find_spec('mmcv') is None or find_spec('mmcv._ext') is None:
        raise ValueError(
            f'{host} needs mmcv with its operators, but mmcv-lite, an mmcv '
            f'without them, or none is installed: {CURE}')
    mmcv = _version('mmcv')
    if mmcv and _version('mmcv-lite'):
        raise ValueError('mmcv and mmcv-lite, which share a folder, are both '
                         f'installed: {CURE}')
    if mmcv and digit_version(mmcv) >= digit_version(TOO_NEW):
        raise ValueError(f'{host} refuses mmcv {TOO_NEW} and above, but '
                         f'{mmcv} is installed: {CURE}')


def _version(package: str) -> Optional[str]:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def host_tool(host: str, tool: str) -> Path:
    """The package's own ``tools/train.py`` or ``tools/test.py``, which its
    wheel carries for ``mim``.

    Raises:
        FileNotFoundError: It does not.
    """
    package = Path(find_spec(host).origin).parent
    # In a wheel; in a source tree installed by `pip install -e`.
    for folder in (package / '.mim', package.parent):
        path = folder / 'tools' / f'{tool}.py'
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"'{package}' has no tools/{tool}.py: '{sys.executable} -m pip "
        f"install --force-reinstall --no-deps {HOSTS[host].split()[0]}'")
