"""Detection of non-finite losses and gradients, and of collapse."""
import functools
import os.path as osp
from typing import Any, NamedTuple, Optional

import torch
from mmengine.dist import all_gather_object, get_rank
from mmengine.hooks import Hook
from torch import Tensor, nn
from torch.optim import Optimizer

from ...registry import HOOKS
from ...utils.text import printable
from ...utils.unwrap import unwrap_model
from ..async_read import AsyncRead
from ..before_save import call_before_save
from ..fused_optimizer import skips_on_device, start_momentum, use_fused
from ..replay import random_state, save_replay
from ..step_check import BufferCopy, StepCheck, active_scaler, check_step


class _Step(NamedTuple):
    """A step whose values are not read yet."""
    iteration: int
    batches: list[tuple[Any, dict]]
    terms: list[dict[str, Tensor]]
    check: StepCheck
    read: AsyncRead


@HOOKS.register_module()
class NonFiniteHook(Hook):
    """Hook that stops or skips a step with a non-finite loss or gradient.

    All ranks make the same decision, and the weights never change in a bad
    step. One message names the loss or parameter, the iteration, the images,
    and a file for ``tools/replay_batch.py``.

    PyTorch's fused optimizers and ``ForeachLARS`` can skip a step on the
    device. With these, the host does not wait for the result of the check:
    the message, the file and the stop follow just before the next step, or
    before a validation, a checkpoint or the end of the epoch. The hook
    switches SGD, Adam and AdamW to their fused kernels, unless the config
    sets ``fused``, ``foreach`` or a ``dampening``. With other optimizers, and
    with ``clip_grad``, whose norm MMEngine reads, each step costs one wait.

    The hook wraps the ``step`` of the optimizer wrapper. With mixed
    precision, the loss scaler handles gradients that overflow, so they are an
    error only when its scale has fallen to 1; a non-finite loss is always an
    error. If gradients are accumulated, all batches of the step are checked
    and saved. With several ranks, each step costs an all-reduce of two
    numbers.

    The hook also warns once if the projections have collapsed. The hook does
    not check a training with several optimizers, and says so.

    Args:
        action (str): 'stop' or 'skip'. Defaults to 'stop'.
        max_skips (int): With 'skip', number of steps that may be skipped; the
            next one stops the training. Each skipped step writes a file with
            the weights. Defaults to 10.
        min_projection_std (float): The projections count as collapsed if the
            logged ``projection_std`` is below this value: 1 means evenly
            spread directions, 0 means a single direction. Defaults to 0.1.
        collapse_iters (int): Consecutive steps below ``min_projection_std``
            before the warning. Defaults to 500.

    Raises:
        ValueError: ``action`` is neither 'stop' nor 'skip'.
    """
    # After the hooks that change the batch or the model.
    priority = 'VERY_LOW'

    def __init__(self, action: str = 'stop', max_skips: int = 10,
                 min_projection_std: float = 0.1,
                 collapse_iters: int = 500) -> None:
        if action not in ('stop', 'skip'):
            raise ValueError(f"NonFiniteHook: action is '{action}', but must "
                             "be 'stop' or 'skip'")
        self.action = action
        self.max_skips = max_skips
        self.min_projection_std = min_projection_std
        self.collapse_iters = collapse_iters
        self.skipped = 0
        self._collapsed = 0  # consecutive steps
        self._is_off = False
        self._pending: Optional[_Step] = None
        self._start_step()

    def _start_step(self) -> None:
        self._batches: list[tuple[Any, dict]] = []
        self._terms: list[dict[str, Tensor]] = []
        self._projection_std: Optional[Tensor] = None
        self._buffers: Optional[BufferCopy] = None

    def before_run(self, runner) -> None:
        """Switch to a fused optimizer, before a checkpoint is loaded."""
        _use_fused(runner.optim_wrapper)

    def before_train(self, runner) -> None:
        """Wrap the ``step`` of the optimizer wrapper."""
        self._is_off = not hasattr(runner.optim_wrapper, 'optimizer')
        if self._is_off:
            runner.logger.warning('NonFiniteHook does not check this training:'
                                  ' it has several optimizers')
            return
        _use_fused(runner.optim_wrapper)
        call_before_save(runner, lambda: self._settle(runner))
        model = unwrap_model(runner.model)
        self._handle = model.register_forward_hook(self._record_losses)
        step = self._original = runner.optim_wrapper.step
        # The schedulers look for attributes of the original method.
        runner.optim_wrapper.step = functools.update_wrapper(
            functools.partial(self._step, runner, step), step)

    def after_train(self, runner) -> None:
        """Restore the ``step`` of the optimizer wrapper."""
        if self._is_off:
            return
        self._settle(runner)
        self._handle.remove()
        runner.optim_wrapper.step = self._original

    def before_train_iter(self, runner, batch_idx: int,
                          data_batch: Any = None) -> None:
        """Record the batch and its random state."""
        if self._is_off:
            return
        model = unwrap_model(runner.model)
        if self.action == 'skip' and not self._batches:
            # A bad batch spoils the running statistics of BN.
            self._buffers = BufferCopy(model)
        self._batches.append((data_batch, random_state(
            getattr(model, 'data_preprocessor', model))))

    def after_train_epoch(self, runner) -> None:
        """Handle the last step of the epoch."""
        self._settle(runner)

    def before_val(self, runner) -> None:
        """Handle the last step before its statistics are used."""
        self._settle(runner)

    def _record_losses(self, model, inputs, out) -> None:
        if isinstance(out, dict) and any('loss' in name for name in out):
            self._terms.append({name: value.detach().mean()
                                for name, value in out.items()
                                if 'loss' in name})
            self._projection_std = out.get('projection_std')

    def _step(self, runner, step, **kwargs) -> None:
        """Check the losses and gradients, then call the original ``step``."""
        wrapper, buffers = runner.optim_wrapper, self._buffers
        optimizer = wrapper.optimizer
        check = check_step(
            wrapper, [x for terms in self._terms for x in terms.values()],
            self._projection_std)
        self._settle(runner)  # the previous step: the weights are still its
        self._pending = _Step(runner.iter + 1, self._batches, self._terms,
                              check, AsyncRead(check.values))
        self._start_step()
        start_momentum(optimizer)
        if not skips_on_device(optimizer) or wrapper.clip_grad_kwargs:
            if self._settle(runner):
                step(**kwargs)
            elif buffers:
                buffers.restore(check.is_bad)
            return
        if active_scaler(wrapper):
            check.spoil_gradients()  # the scaler sets found_inf
            step(**kwargs)
        else:
            optimizer.found_inf = check.is_bad.float()
            try:
                step(**kwargs)
            finally:
                del optimizer.found_inf
        if buffers:
            buffers.restore(check.is_bad)

    def _settle(self, runner) -> bool:
        """Read and handle the check of the last step, if it is not yet read.

        All ranks call this function at the same points, so they agree.

        Returns:
            bool: False if the step was bad and is skipped.

        Raises:
            FloatingPointError: The step was bad, and the training must stop.
        """
        if self._pending is None:
            return True
        step, self._pending = self._pending, None
        own_loss, loss, gradient, std, scale = step.read.values()
        if not loss and not (gradient and scale <= 1):
            self._check_collapse(runner, std)
            return True
        # Each rank has its own losses, but gradients are the same on all.
        text = self._describe(runner, step) if own_loss or not loss else None
        self._stop_or_skip(
            runner, '; '.join(filter(None, all_gather_object(text))))
        return False

    def _describe(self, runner, step: _Step) -> str:
        """Write the replay file and return the message of this rank."""
        model = unwrap_model(runner.model)
        found = _find_names(model, step)
        rank = get_rank()
        path = osp.join(runner.work_dir, 'non_finite',
                        f'iter_{step.iteration}_rank{rank}.pth')
        try:
            save_replay(path, model, step.batches, runner.cfg,
                        iteration=step.iteration, rank=rank, found=found,
                        precision=_precision(runner.optim_wrapper))
            cure = f'see python tools/replay_batch.py {path}'
        except OSError as e:
            cure = f"the file '{path}' could not be written ({e})"
        images = [str(x.metainfo.get('img_path', '?'))
                  for data, _ in step.batches
                  for x in data.get('data_samples') or []]
        return printable(
            f'{found} is not finite at iteration {step.iteration} on rank '
            f'{rank}: {cure}; the images are {", ".join(images)}')

    def _stop_or_skip(self, runner, text: str) -> None:
        if self.action == 'stop':
            raise FloatingPointError(text)
        self.skipped += 1
        if self.skipped > self.max_skips:
            raise FloatingPointError(
                f'{self.skipped} steps were not finite, and max_skips of '
                f'NonFiniteHook is {self.max_skips}; the last: {text}')
        runner.logger.warning(
            f'skipped step {self.skipped} of at most {self.max_skips}: {text}')

    def _check_collapse(self, runner, std: float) -> None:
        is_low = std < self.min_projection_std
        self._collapsed = self._collapsed + 1 if is_low else 0
        if self._collapsed == self.collapse_iters:
            runner.logger.warning(
                f'projection_std has been below {self.min_projection_std:g} '
                f'for {self._collapsed} steps and is now {std:.3g}: the '
                'projections of all images are nearly the same (collapse). '
                'Lower the learning rate or lengthen the warm-up, and resume '
                'from an earlier checkpoint')
            self.collapse_iters = -1  # warn only once


def _find_names(model: nn.Module, step: _Step) -> str:
    """Return the losses, or else the parameter, that were not finite."""
    losses = sorted({name for terms in step.terms
                     for name, value in terms.items()
                     if not torch.isfinite(value)})
    if losses:
        return ', '.join(losses)
    weights = {id(x) for x in step.check.bad_weights()}
    bad = [name for name, x in model.named_parameters() if id(x) in weights]
    # Gradients flow backward, so the last parameter is the first fault.
    others = f' (and of {len(bad) - 1} parameters before it)'
    return f'gradient of {bad[-1]}' + (others if len(bad) > 1 else '')


def _use_fused(wrapper: Any) -> None:
    # A run without training has None or a config, and OptimWrapperDict has
    # several optimizers.
    optimizer = getattr(wrapper, 'optimizer', None)
    if isinstance(optimizer, Optimizer):
        use_fused(optimizer)


def _precision(wrapper) -> str:
    if getattr(wrapper, 'loss_scaler', None) is None:
        return 'float32'
    return str(wrapper.cast_dtype or torch.float16).replace('torch.', '')
