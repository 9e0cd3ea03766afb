"""Initialization of a network from a file, checked and reported."""
import logging
from typing import Optional

from mmengine.logging import print_log
from mmengine.model.weight_init import PretrainedInit, update_init_info
from torch import nn

from ..registry import WEIGHT_INITIALIZERS
from .initial_weights import read_initial_weights


@WEIGHT_INITIALIZERS.register_module(name='Pretrained')
class CheckedPretrainedInit(PretrainedInit):
    """Initialization of ``init_cfg=dict(type='Pretrained', ...)``.

    In scope ``univip_mm``, it takes the place of MMEngine's, which loads the
    names that fit and only logs the others. This one also converts names,
    refuses files of which only a part fits, and logs how many tensors were
    loaded. See :func:`~univip_mm.engine.initial_weights.read_initial_weights`.

    Args:
        checkpoint (str): File or URL.
        prefix (str, optional): Prefix of the names to be used. Found
            automatically by default.
        map_location (str): Not used, the file is read to the CPU.
        partial (bool): Accept a file of which only a part fits. Defaults to
            False.

    Raises:
        FileNotFoundError: The file does not exist.
        CheckpointError: It cannot be read, or does not fit.
    """

    def __init__(self, checkpoint: str, prefix: Optional[str] = None,
                 map_location: str = 'cpu', partial: bool = False) -> None:
        super().__init__(checkpoint, prefix, map_location)
        self.partial = partial

    def __call__(self, module: nn.Module) -> None:
        """Load the weights into the module, and log the report."""
        weights = read_initial_weights(
            self.checkpoint, module, self.partial, self.prefix)
        module.load_state_dict(weights.state_dict, strict=False)
        print_log(weights.report, logger='current',
                  level=logging.WARNING if weights.is_partial
                  else logging.INFO)
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=self._get_init_info())
