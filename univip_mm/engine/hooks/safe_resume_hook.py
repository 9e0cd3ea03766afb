"""Resumption without executing code in the checkpoint."""
import logging

import torch
from mmengine.hooks import Hook

from ...hosts.versions import reader_refusal
from ...registry import HOOKS
from ..checkpoint import load_checkpoints_safely
from ..plain_log import restore_log, to_plain_parts


@HOOKS.register_module()
class SafeResumeHook(Hook):
    """Hook that saves plain checkpoints and loads checkpoints safely.

    MMEngine stores its log in the checkpoint as Python objects, which
    PyTorch's safe reader refuses. This hook stores the log as tensors and
    plain values, and restores it after a resume. So the checkpoints can be
    read with ``torch.load(weights_only=True)``.

    While this hook exists, MMEngine loads all checkpoints, also those of
    ``init_cfg``, with a reader that executes no code. This needs PyTorch 2.6;
    with older versions, nothing is loaded. The hook also removes
    ``meta.config``, which the Runner would execute.
    """
    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self._reported: set[str] = set()
        # Here, because weights of init_cfg can be loaded before a run.
        load_checkpoints_safely()

    def before_train(self, runner) -> None:
        """Warn if the checkpoints of this training cannot be resumed."""
        refusal = reader_refusal(torch.__version__)
        if refusal:
            runner.logger.warning(
                f'this training cannot be resumed here: {refusal}')

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Store the log and the description in plain types."""
        dropped = set(to_plain_parts(checkpoint)) - self._reported
        if dropped:
            self._reported |= dropped
            runner.logger.log(
                logging.WARNING, 'left out of the checkpoints, because only '
                'numbers, texts, tensors, lists and dicts are stored: '
                f'{", ".join(sorted(dropped))}')

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Remove the config and restore the log, before the Runner resumes."""
        if isinstance(checkpoint.get('meta'), dict):
            checkpoint['meta'].pop('config', None)
        restore_log(checkpoint)
