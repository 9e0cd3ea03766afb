"""Check of the config key ``model.graph`` before the first iteration."""
from typing import Optional

from mmengine.config import Config

from ..models.step_graph import check_mode
from .config import dicts_in

WRAPPERS = ('DistributedDataParallel', 'MMDistributedDataParallel')


def check_graph(cfg: Config) -> None:
    """Check that the rest of a config can work with its ``model.graph``.

    Raises:
        ValueError: A key does not fit, or the machine cannot run the mode.
            The line names the key and the cure.
    """
    mode = cfg.get('model', {}).get('graph')
    if mode is None:
        return
    check_mode(mode)
    fault = _fault(cfg)
    if fault:
        raise ValueError(f'model.graph={mode!r} cannot work with {fault}, or '
                         'set model.graph=None')


def _fault(cfg: Config) -> Optional[str]:
    """Return the key that does not fit a graph and the cure, or None."""
    if not cfg.train_dataloader.get('drop_last', False):
        return 'a smaller last batch: set train_dataloader.drop_last=True'
    if cfg.get('compile'):
        return "MMEngine's own option compile: remove compile"
    wrapper = (cfg.get('model_wrapper_cfg') or {}).get('type', WRAPPERS[0])
    if str(wrapper).rpartition('.')[2] not in WRAPPERS:
        return (f'model_wrapper_cfg.type={str(wrapper)!r}: use '
                'MMDistributedDataParallel')
    for path, part in dicts_in(cfg.model, 'model'):
        if part.get('with_cp'):
            return f'{path}.with_cp=True: set with_cp=False'
    return None
