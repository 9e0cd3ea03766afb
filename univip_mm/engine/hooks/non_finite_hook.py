"""Detection of non-finite losses and gradients, and of collapse."""
import functools
import os.path as osp
from typing import Any, Optional

import torch
from mmengine.dist import all_gather_object, all_reduce, get_rank
from mmengine.hooks import Hook

from ...registry import HOOKS
from ...utils.text import printable
from ...utils.unwrap import unwrap_model
from ..replay import random_state, save_replay


@HOOKS.register_module()
class NonFiniteHook(Hook):
    """Hook that stops or skips a step with a non-finite loss or gradient.

    The check runs before the weights are updated, and all ranks make the same
    decision. One message names the loss or parameter, the iteration, the
    images, and a file for ``tools/replay_batch.py``.

    The hook wraps the ``step`` of the optimizer wrapper. With mixed
    precision, the loss scaler handles gradients that overflow, so they are an
    error only when its scale has fallen to 1; a non-finite loss is always an
    error. If gradients are accumulated, all batches of the step are checked
    and saved. Each step costs one synchronization with the device, as in the
    loss scaler and LARS, and an all-reduce of two numbers.

    The hook also warns once if the projections have collapsed.

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
        self._start_step()

    def _start_step(self) -> None:
        self._batches: list[tuple[Any, dict]] = []
        self._terms: list[dict[str, torch.Tensor]] = []
        self._projection_std: Optional[torch.Tensor] = None
        self._buffers: dict[str, torch.Tensor] = {}

    def before_train(self, runner) -> None:
        """Wrap the ``step`` of the optimizer wrapper."""
        model = unwrap_model(runner.model)
        self._handle = model.register_forward_hook(self._record_losses)
        step = self._original = runner.optim_wrapper.step
        # The schedulers look for attributes of the original method.
        runner.optim_wrapper.step = functools.update_wrapper(
            functools.partial(self._step, runner, step), step)

    def after_train(self, runner) -> None:
        """Restore the ``step`` of the optimizer wrapper."""
        self._handle.remove()
        runner.optim_wrapper.step = self._original

    def before_train_iter(self, runner, batch_idx: int,
                          data_batch: Any = None) -> None:
        """Record the batch and its random state."""
        model = unwrap_model(runner.model)
        if self.action == 'skip' and not self._batches:
            # A bad batch spoils the running statistics of BN.
            self._buffers = {
                name: x.clone() for name, x in model.named_buffers()}
        self._batches.append((data_batch, random_state(
            getattr(model, 'data_preprocessor', model))))

    def _record_losses(self, model, inputs, out) -> None:
        if isinstance(out, dict) and any('loss' in name for name in out):
            self._terms.append({name: value.detach().mean()
                                for name, value in out.items()
                                if 'loss' in name})
            self._projection_std = out.get('projection_std')

    def _step(self, runner, step, **kwargs) -> None:
        """Check the losses and gradients, then call the original ``step``."""
        scaler = getattr(runner.optim_wrapper, 'loss_scaler', None)
        losses = torch.stack([value.float() for terms in self._terms
                              for value in terms.values()])
        bad_loss = ~torch.isfinite(losses).all()
        bad_gradient = torch.zeros_like(bad_loss)
        if scaler is None:
            bad_gradient = ~_gradients_are_finite(runner.optim_wrapper)
        own = torch.stack([bad_loss, bad_gradient]).float()
        of_all = own.clone()
        all_reduce(of_all, op='max')
        std = (losses.new_ones(()) if self._projection_std is None else
               self._projection_std.float())
        # The only synchronization of host and device.
        own_loss, _, loss, gradient, std = torch.cat(
            [own, of_all, std[None]]).tolist()
        if scaler is not None and not loss and scaler.get_scale() <= 1:
            gradient = not _gradients_are_finite(runner.optim_wrapper)
        if not loss and not gradient:
            self._check_collapse(runner, std)
            step(**kwargs)
            self._start_step()
            return
        # Each rank has its own losses, but gradients are the same on all.
        text = self._describe(runner) if own_loss or not loss else None
        self._stop_or_skip(
            runner, '; '.join(filter(None, all_gather_object(text))))

    def _describe(self, runner) -> str:
        """Write the replay file and return the message of this rank."""
        model = unwrap_model(runner.model)
        found = self._find_names(model)
        iteration, rank = runner.iter + 1, get_rank()
        path = osp.join(runner.work_dir, 'non_finite',
                        f'iter_{iteration}_rank{rank}.pth')
        try:
            save_replay(path, model, self._batches, runner.cfg,
                        iteration=iteration, rank=rank, found=found,
                        precision=_precision(runner.optim_wrapper))
            cure = f'see python tools/replay_batch.py {path}'
        except OSError as e:
            cure = f"the file '{path}' could not be written ({e})"
        images = [str(x.metainfo.get('img_path', '?'))
                  for data, _ in self._batches
                  for x in data.get('data_samples') or []]
        return printable(
            f'{found} is not finite at iteration {iteration} on rank {rank}: '
            f'{cure}; the images are {", ".join(images)}')

    def _find_names(self, model: torch.nn.Module) -> str:
        losses = sorted({name for terms in self._terms
                         for name, value in terms.items()
                         if not torch.isfinite(value)})
        if losses:
            return ', '.join(losses)
        bad = [name for name, x in model.named_parameters()
               if x.grad is not None and not torch.isfinite(x.grad).all()]
        # Gradients flow backward, so the last parameter is the first fault.
        others = f' (and of {len(bad) - 1} parameters before it)'
        return f'gradient of {bad[-1]}' + (others if len(bad) > 1 else '')

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
        with torch.no_grad():
            for name, value in unwrap_model(runner.model).named_buffers():
                # Integer buffers are counters, e.g. the steps of the EMA.
                if name in self._buffers and value.is_floating_point():
                    value.copy_(self._buffers[name])
        self._start_step()

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


def _gradients_are_finite(wrapper) -> torch.Tensor:
    """Return a bool tensor on the device of the gradients."""
    gradients = [x.grad for group in wrapper.optimizer.param_groups
                 for x in group['params'] if x.grad is not None]
    # One kernel for all gradients, as in clip_grad_norm_.
    largest = torch._foreach_norm(gradients, float('inf'))
    return torch.isfinite(torch.stack(largest)).all()


def _precision(wrapper) -> str:
    if getattr(wrapper, 'loss_scaler', None) is None:
        return 'float32'
    return str(wrapper.cast_dtype or torch.float16).replace('torch.', '')
