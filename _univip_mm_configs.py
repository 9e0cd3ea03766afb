"""Lets configs be named as ``univip_mm::univip_r50_coco.py``.

MMEngine inherits such names from its own list of packages alone, and reads a
config before anything that the config imports. So this module is imported at
the start of Python, by ``univip_mm.pth``, and in a source tree, which has no
such file, by the package. It waits for MMEngine's module of configs, and for
MIM's of paths, and adds this package to what each knows. It imports nothing
else, and changes nothing for other names.
"""
import os
import sys
from importlib.machinery import PathFinder
from importlib.util import find_spec

PREFIX = 'univip_mm::'


def find_config(name: str) -> str:
    """The path of a config of this package.

    Args:
        name (str): As ``univip_mm::univip_r50_coco.py``.

    Raises:
        FileNotFoundError: There is no such config.
    """
    package = os.path.dirname(find_spec('univip_mm').origin)
    folder = os.path.join(package, '.mim', 'configs')
    if not os.path.isdir(folder):  # a source tree
        folder = os.path.join(os.path.dirname(package), 'configs')
    name = name[len(PREFIX):]
    path = os.path.join(folder, *name.split('/'))
    if not os.path.isfile(path):
        known = sorted(x for x in os.listdir(folder) if x.endswith('.py'))
        raise FileNotFoundError(
            f"univip_mm has no config '{name}'; it has {', '.join(known)}, "
            'and those below _base_/ and benchmarks/')
    return path


def teach_mmengine(module) -> None:
    """Let ``_base_`` of MMEngine's configs name ours."""
    config, theirs = module.Config, module.Config._get_cfg_path

    def get_cfg_path(cfg_path, filename):
        if cfg_path.startswith(PREFIX):
            # No scope: our configs have a default_scope, and MMEngine would
            # put it into dicts that no registry builds, too.
            return find_config(cfg_path), None
        return theirs(cfg_path, filename)

    config._get_cfg_path = staticmethod(get_cfg_path)


def teach_mim(module) -> None:
    """Let ``mim train mmpretrain CONFIG`` and ``mim test`` name ours."""
    theirs = module.recursively_find

    def recursively_find(root, base_name, followlinks=False):
        if base_name.startswith(PREFIX):
            return [find_config(base_name)]
        return theirs(root, base_name, followlinks)

    module.recursively_find = recursively_find


TEACH = {
    'mmengine.config.config': teach_mmengine,
    'mim.utils.utils': teach_mim,
}


class Finder:
    """Finds the modules of :data:`TEACH`, and teaches each once it is
    imported."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name not in TEACH:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            TEACH.pop(name)(module)

        spec.loader.exec_module = exec_module
        return spec


def install() -> None:
    """Teach what is imported already, and wait for what is not. Once."""
    if Finder in sys.meta_path:
        return
    for name in list(TEACH):
        if name in sys.modules:
            TEACH.pop(name)(sys.modules[name])
    sys.meta_path.insert(0, Finder)


install()
