"""Packages whose configs and tools run the benchmarks."""
import sys
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Optional

from mmengine.utils import digit_version

# Arguments of pip that install each package with its import requirements.
PACKAGES = dict(
    mmdet='mmdet==3.3.0',
    mmseg='mmsegmentation==1.2.2 ftfy regex prettytable',
    mmpretrain='mmpretrain==1.2.0')
TOOLS = ('train', 'test')
# mmdet and mmseg refuse to import with this version of mmcv and later ones.
_MMCV_LIMIT = '2.2.0'
_ENVIRONMENT = "or use the environment of 'make test-downstream'"
_MMCV_CURE = (
    "'pip uninstall mmcv-lite mmcv', then 'MMCV_WITH_OPS=1 pip install "
    f"--no-build-isolation mmcv==2.1.0', {_ENVIRONMENT}")


def check_package(package: str) -> None:
    """Raise ValueError if a package or its mmcv is missing or unsuitable."""
    if package not in PACKAGES:
        raise ValueError(f"unknown package '{package}': choose one of "
                         f'{", ".join(PACKAGES)}')
    if find_spec(package) is None:
        raise ValueError(f"{package} is not installed: 'pip install "
                         f"{PACKAGES[package]}', {_ENVIRONMENT}")
    if package == 'mmpretrain':  # needs no compiled operators of mmcv
        return
    if find_spec('mmcv') is None or find_spec('mmcv._ext') is None:
        raise ValueError(f'{package} needs mmcv with its operators, but mmcv '
                         'is missing, is mmcv-lite, or has no operators: '
                         f'{_MMCV_CURE}')
    mmcv = _version('mmcv')
    if mmcv and _version('mmcv-lite'):
        raise ValueError('mmcv and mmcv-lite are both installed and overwrite '
                         f'each other: {_MMCV_CURE}')
    if mmcv and digit_version(mmcv) >= digit_version(_MMCV_LIMIT):
        raise ValueError(f'{package} needs mmcv below {_MMCV_LIMIT}, but '
                         f'{mmcv} is installed: {_MMCV_CURE}')


def import_package(name: str, what: str) -> ModuleType:
    """Import an optional package.

    Args:
        name (str): Name of the module, which is also the name for pip.
        what (str): What needs it, for the message.

    Raises:
        ValueError: The package is not installed.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError:
        raise ValueError(f"{what} needs {name}, which is not installed: 'pip "
                         f"install {name}'") from None


def find_tool(package: str, tool: str) -> Path:
    """Return the path of the package's ``tools/train.py`` or ``test.py``.

    Wheels of the OpenMMLab packages have the tools in ``.mim``. A source tree
    installed with ``pip install -e`` has them next to the package.
    """
    folder = Path(find_spec(package).origin).parent
    for parent in (folder / '.mim', folder.parent):
        path = parent / 'tools' / f'{tool}.py'
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"'{folder}' has no tools/{tool}.py: run '{sys.executable} -m pip "
        f"install --force-reinstall --no-deps {PACKAGES[package].split()[0]}'")


def _version(package: str) -> Optional[str]:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
