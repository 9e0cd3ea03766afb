"""Registries of scope ``univip_mm``, children of the host's registries.

Components of the host (ResNet, NonLinearNeck, CosineEMA, LARS, PackInputs,
...) are found through the parent registries. A config with
``default_scope='univip_mm'`` therefore names them without a prefix.
"""
import importlib
import warnings

import mmengine.registry
from mmengine.registry import Registry

from .hosts.find_host import check_host

HOST = check_host()
# Import the host's components, so that they are in the parent registries.
with warnings.catch_warnings():
    # mmcv-lite warns at import that it is not mmcv. Pre-training does not
    # need mmcv.
    warnings.filterwarnings('ignore', message='Fail to import')
    for _part in ('datasets', 'engine', 'evaluation', 'models',
                  'visualization'):
        importlib.import_module(f'{HOST}.{_part}')
_host_registry = importlib.import_module(f'{HOST}.registry')


def _child(name: str) -> Registry:
    parent = getattr(_host_registry, name, None)
    if parent is None:  # MMPretrain's EVALUATORS is MMSelfSup's EVALUATOR
        parent = getattr(_host_registry, name[:-1])
    try:
        parent.import_from_location()
    except ModuleNotFoundError:
        # The registries of MMSelfSup 1.0 name a module for loops and runners
        # that does not exist. MMEngine has these components.
        parent = parent.parent
    return Registry(parent.name, parent=parent, scope='univip_mm')


MODELS = _child('MODELS')
DATASETS = _child('DATASETS')
TRANSFORMS = _child('TRANSFORMS')
HOOKS = _child('HOOKS')
METRICS = _child('METRICS')
OPTIMIZERS = _child('OPTIMIZERS')
# The hosts have no functions of their own. MMEngine looks for them without
# the default scope, so a config names ours as 'univip_mm.NAME'.
FUNCTIONS = Registry(
    'function', parent=mmengine.registry.FUNCTIONS, scope='univip_mm')

# Empty child registries: without them our scope could not find the host's
# components.
RUNNERS = _child('RUNNERS')
RUNNER_CONSTRUCTORS = _child('RUNNER_CONSTRUCTORS')
LOOPS = _child('LOOPS')
LOG_PROCESSORS = _child('LOG_PROCESSORS')
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
