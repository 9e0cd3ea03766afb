"""The packages whose configs and tools run the benchmarks."""
import sys
from importlib.util import find_spec
from pathlib import Path

# What each needs beside itself to be imported.
HOSTS = dict(
    mmdet='mmdet==3.3.0',
    mmseg='mmsegmentation==1.2.2 ftfy regex prettytable',
    mmpretrain='mmpretrain==1.2.0')
TOOLS = ('train', 'test')
# mmpretrain does without mmcv's operators.
NEED_OPERATORS = ('mmdet', 'mmseg')


def check_host(host: str) -> None:
    """Whether a package is installed, with what it needs.

    Raises:
        ValueError: It is not, or mmcv-lite stands in the place of mmcv.
    """
    if host not in HOSTS:
        raise ValueError(f"there is no host '{host}': choose one of "
                         f'{", ".join(HOSTS)}')
    if find_spec(host) is None:
        raise ValueError(
            f"{host} is not installed: 'pip install {HOSTS[host]}', or take "
            "the environment that 'make test-downstream' builds")
    if host in NEED_OPERATORS and find_spec('mmcv._ext') is None:
        raise ValueError(
            f'{host} needs mmcv with its operators, but mmcv-lite, or an mmcv '
            "without them, is installed: 'pip uninstall mmcv-lite mmcv', then "
            "'MMCV_WITH_OPS=1 pip install --no-build-isolation mmcv==2.1.0', "
            "or take the environment that 'make test-downstream' builds")


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
