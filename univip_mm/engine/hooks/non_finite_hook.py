import functools
import os.path as osp
from typing import Any, Optional

import torch
from mmengine.dist import all_gather_object, all_reduce, get_rank
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from ...registry import HOOKS
from ..replay import random_state, save_replay


@HOOKS.register_module()
class NonFiniteHook(Hook):
    """Stops the training, or skips the step, where a loss or a gradient is
    not finite: before the weights are touched, on all ranks alike, with one
    message that says which term or parameter, which iteration, which images,
    and a file that ``tools/replay_batch.py`` replays.

    It takes the place of the optimiser wrapper's ``step``. With mixed
    precision, gradients that overflow are the loss scaler's own affair, and
    no fault as long as its scale is above 1; a loss that is not finite
    is one. Where gradients are accumulated, all batches of the step are held
    against it and go into the file.

    The flag has to be read before the step, so the host waits for the device
    once a step, as the loss scaler and LARS do anyway; between ranks it is
    one more reduction of two numbers.

    It also warns, once, where the projections have collapsed.

    Args:
        action (str): 'stop' or 'skip'. Defaults to 'stop'.
        max_skips (int): With 'skip', the number of steps after which the
            next bad one stops the training. Each writes a file, with the
            weights in it. Defaults to 10.
        min_projection_std (float): Below this value of the statistic
            ``projection_std``, 1 where directions are spread evenly and 0
            where all are one, the projections count as collapsed. Defaults
            to 0.1.
        collapse_iters (int): That many steps in a row. Defaults to 500.

    Raises:
        ValueError: ``action`` is neither.
    """
    # After the hooks that change the batch or the model, if there are any.
    priority = 'VERY_LOW'

    def __init__(self,
                 action: str = 'stop',
                 max_skips: int = 10,
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
        self._collapsed = 0  # steps in a row
        self._start_step()

    def _start_step(self) -> None:
        self._batches: list[tuple[Any, dict]] = []
        self._terms: list[dict[str, torch.Tensor]] = []
        self._projection_std: Optional[torch.Tensor] = None
        self._buffers: dict[str, torch.Tensor] = {}

    def before_train(self, runner) -> None:
        """Take the place of the optimiser wrapper's ``step``."""
        model = _bare(runner.model)
        self._handle = model.register_forward_hook(self._note_losses)
        step = self._original = runner.optim_wrapper.step
        # With its attributes, by which the schedulers know it.
        runner.optim_wrapper.step = functools.update_wrapper(
            functools.partial(self._step, runner, step), step)

    def after_train(self, runner) -> None:
        """Give it back."""
        self._handle.remove()
        runner.optim_wrapper.step = self._original

    def before_train_iter(self, runner, batch_idx: int,
                          data_batch: Any = None) -> None:
        """Note the batch, and what is drawn from for it."""
        model = _bare(runner.model)
        if self.action == 'skip' and not self._batches:
            # A bad batch leaves its mark in running statistics.
            self._buffers = {
                name: x.clone() for name, x in model.named_buffers()
            }
        self._batches.append((data_batch, random_state(
            getattr(model, 'data_preprocessor', model))))

    def _note_losses(self, model, inputs, out) -> None:
        if isinstance(out, dict) and any('loss' in name for name in out):
            self._terms.append({
                name: value.detach().mean()
                for name, value in out.items() if 'loss' in name
            })
            self._projection_std = out.get('projection_std')

    def _step(self, runner, step, **kwargs) -> None:
        """In place of the optimiser wrapper's."""
        scaler = getattr(runner.optim_wrapper, 'loss_scaler', None)
        losses = torch.stack([
            value.float() for terms in self._terms
            for value in terms.values()
        ])
        bad_loss = ~torch.isfinite(losses).all()
        bad_gradient = torch.zeros_like(bad_loss)
        if scaler is None:
            bad_gradient = ~_gradients_are_finite(runner.optim_wrapper)
        own = torch.stack([bad_loss, bad_gradient]).float()
        of_all = own.clone()
        all_reduce(of_all, op='max')
        spread = (losses.new_ones(()) if self._projection_std is None else
                  self._projection_std.float())
        # The one time that the host waits for the device.
        own_loss, _, loss, gradient, spread = torch.cat(
            [own, of_all, spread[None]]).tolist()
        if scaler is not None and not loss and scaler.get_scale() <= 1:
            gradient = not _gradients_are_finite(runner.optim_wrapper)
        if not loss and not gradient:
            self._watch_collapse(runner, spread)
            step(**kwargs)
            self._start_step()
            return
        # A loss is of one rank. A gradient is the same on all.
        text = self._describe(runner) if own_loss or not loss else None
        self._stop_or_skip(runner,
                           '; '.join(filter(None, all_gather_object(text))))

    def _describe(self, runner) -> str:
        """What is not finite on this rank; writes the replay file."""
        names = sorted({
            name for terms in self._terms for name, value in terms.items()
            if not torch.isfinite(value)
        })
        model = _bare(runner.model)
        if not names:
            bad = [name for name, x in model.named_parameters()
                   if x.grad is not None and not torch.isfinite(x.grad).all()]
            # The last in the network, where the gradient comes from.
            names = [f'gradient of {bad[-1]}']
            if len(bad) > 1:
                names[0] += f' (and of {len(bad) - 1} parameters before it)'
        found = ', '.join(names)
        iteration, rank = runner.iter + 1, get_rank()
        path = osp.join(runner.work_dir, 'non_finite',
                        f'iter_{iteration}_rank{rank}.pth')
        try:
            save_replay(
                path, model, self._batches, runner.cfg, iteration=iteration,
                rank=rank, found=found,
                precision=_precision(runner.optim_wrapper))
            cure = f'see python tools/replay_batch.py {path}'
        except OSError as e:
            cure = f"the file '{path}' could not be written ({e})"
        images = [
            sample.metainfo.get('img_path', '?') for data, _ in self._batches
            for sample in data.get('data_samples') or []
        ]
        return (f'{found} is not finite at iteration {iteration} on rank '
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
        with torch.no_grad():
            for name, value in _bare(runner.model).named_buffers():
                # A counter of the moving average has to go on.
                if name in self._buffers and value.is_floating_point():
                    value.copy_(self._buffers[name])
        self._start_step()

    def _watch_collapse(self, runner, spread: float) -> None:
        low = spread < self.min_projection_std
        self._collapsed = self._collapsed + 1 if low else 0
        if self._collapsed == self.collapse_iters:
            runner.logger.warning(
                f'projection_std has been below {self.min_projection_std:g} '
                f'for {self._collapsed} steps, now {spread:.3g}: the '
                'projections of all images have become one. Lower the '
                'learning rate or lengthen the warm-up, and go on from an '
                'earlier checkpoint')
            self.collapse_iters = -1  # said once


def _bare(model):
    return model.module if is_model_wrapper(model) else model


def _gradients_are_finite(wrapper) -> torch.Tensor:
    """Whether all are, a bool on their device."""
    gradients = [
        x.grad for group in wrapper.optimizer.param_groups
        for x in group['params'] if x.grad is not None
    ]
    # As clip_grad_norm_ has it: one kernel for all of them.
    largest = torch._foreach_norm(gradients, float('inf'))
    return torch.isfinite(torch.stack(largest)).all()


def _precision(wrapper) -> str:
    if getattr(wrapper, 'loss_scaler', None) is None:
        return 'float32'
    cast = wrapper.cast_dtype or torch.float16
    return str(cast).replace('torch.', '')
