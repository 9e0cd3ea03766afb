"""The child registries of scope ``univip_mm``, under the installed host.

This is the only module that knows which host is installed. Everything that
the host registers (ResNet, NonLinearNeck, CosineEMA, LARS, PackInputs, ...)
is found through the parent registries, so a config with
``default_scope='univip_mm'`` names the host's parts without a prefix.
"""
import importlib
import os
import warnings
from importlib import metadata
from importlib.util import find_spec

from mmengine.registry import Registry
from mmengine.utils import digit_version

from .hosts.versions import check_pairs

HOSTS = ('mmpretrain', 'mmselfsup')
# The first versions of the framework that this package is written for: the
# hosts' 0.x are built on mmcv 1, and have other names.
REQUIRED = dict(mmengine='0.8.3', mmpretrain='1.0.0', mmselfsup='1.0.0')


def is_installed(package: str) -> bool:
    """Whether a package can be imported. A folder of its name, such as a
    clone of its repository, is none."""
    spec = find_spec(package)
    return spec is not None and spec.origin is not None


def find_host() -> str:
    """Name of the host package: what ``UNIVIP_HOST`` says, or the first of
    :data:`HOSTS` that is installed.

    Raises:
        ImportError: No host is installed, or ``UNIVIP_HOST`` names none.
    """
    wanted = os.environ.get('UNIVIP_HOST')
    if wanted is None:
        for host in HOSTS:
            if is_installed(host):
                return host
        raise ImportError(
            'univip_mm needs MMPretrain, which is not installed: '
            "'pip install mmpretrain mmcv-lite'")
    if wanted not in HOSTS:
        raise ImportError(f"UNIVIP_HOST is '{wanted}', but the hosts are "
                          f'{" and ".join(HOSTS)}: set it to one of them')
    if not is_installed(wanted):
        raise ImportError(f"UNIVIP_HOST is '{wanted}', which is not "
                          f"installed: 'pip install {wanted}', or unset it")
    return wanted


def check_version(package: str) -> None:
    """Whether a package is recent enough. One that was not installed by pip,
    but is found as a source tree, is taken as it is.

    Raises:
        ImportError: It is older than :data:`REQUIRED`.
    """
    try:
        installed = metadata.version(package)
    except metadata.PackageNotFoundError:
        return
    required = REQUIRED[package]
    if digit_version(installed) < digit_version(required):
        raise ImportError(
            f'univip_mm needs {package} >= {required}, but {installed} is '
            f"installed: 'pip install \"{package}>={required}\"'")


HOST = find_host()
check_version('mmengine')
check_version(HOST)
check_pairs(HOST)
# The parents have to hold the host's parts before a child can find them.
with warnings.catch_warnings():
    # mmcv-lite says at each import that it is not mmcv, which pre-training
    # does not need.
    warnings.filterwarnings('ignore', message='Fail to import')
    for _part in ('datasets', 'engine', 'evaluation', 'models',
                  'visualization'):
        importlib.import_module(f'{HOST}.{_part}')
_host_registry = importlib.import_module(f'{HOST}.registry')


def _child(name: str) -> Registry:
    parent = getattr(_host_registry, name, None)
    if parent is None:  # MMSelfSup's EVALUATOR is MMPretrain's EVALUATORS
        parent = getattr(_host_registry, name[:-1])
    try:
        parent.import_from_location()
    except ModuleNotFoundError:
        # MMSelfSup 1.0 says that its loops and runners are in a module which
        # it does not have; they are MMEngine's.
        parent = parent.parent
    return Registry(parent.name, parent=parent, scope='univip_mm')


MODELS = _child('MODELS')
DATASETS = _child('DATASETS')
TRANSFORMS = _child('TRANSFORMS')
HOOKS = _child('HOOKS')
METRICS = _child('METRICS')

# Nothing of ours is registered in these; they pass the host's through, since
# a scope without a child registry would hide the host's parts.
RUNNERS = _child('RUNNERS')
RUNNER_CONSTRUCTORS = _child('RUNNER_CONSTRUCTORS')
LOOPS = _child('LOOPS')
LOG_PROCESSORS = _child('LOG_PROCESSORS')
OPTIMIZERS = _child('OPTIMIZERS')
OPTIM_WRAPPERS = _child('OPTIM_WRAPPERS')
OPTIM_WRAPPER_CONSTRUCTORS = _child('OPTIM_WRAPPER_CONSTRUCTORS')
PARAM_SCHEDULERS = _child('PARAM_SCHEDULERS')
DATA_SAMPLERS = _child('DATA_SAMPLERS')
MODEL_WRAPPERS = _child('MODEL_WRAPPERS')
WEIGHT_INITIALIZERS = _child('WEIGHT_INITIALIZERS')
TASK_UTILS = _child('TASK_UTILS')
VISUALIZERS = _child('VISUALIZERS')
VISBACKENDS = _child('VISBACKENDS')
EVALUATORS = _child('EVALUATORS')

if HOST == 'mmselfsup':
    from .hosts import mmselfsup
    mmselfsup.register(MODELS, TRANSFORMS, VISUALIZERS)
