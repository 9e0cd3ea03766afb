"""The hook reports the steps of the optimizer to the model."""
import types

import pytest
import torch
from mmengine.optim import OptimWrapper

from univip_mm.engine import TargetUpdateHook


class Model(torch.nn.Module):
    """Model with the attributes of UniVIP that the hook sets."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))
        self.steps_since_update = self.skipped_step = None
        self.target_net = types.SimpleNamespace()


@pytest.mark.skipif(
    torch.__version__ < '2.4',
    reason='PyTorch before 2.4 has no fused optimizers for the CPU')
def test_hook_passes_skipped_step_to_model():
    model = Model()
    wrapper = OptimWrapper(
        torch.optim.SGD([model.weight], lr=0.1, fused=True),
        accumulative_counts=2)
    TargetUpdateHook().before_train(types.SimpleNamespace(
        model=model, optim_wrapper=wrapper, max_iters=5))
    assert model.target_net.max_updates == 3
    for flag in (1., 0.):
        wrapper.optimizer.found_inf = torch.tensor(flag)
        wrapper.update_params(model.weight.sum())
        wrapper.update_params(model.weight.sum())
        assert model.skipped_step == flag
    assert model.steps_since_update == 3  # skipped steps count
    del wrapper.optimizer.found_inf
    wrapper.step()
    assert model.skipped_step is None


@pytest.mark.parametrize('steps, skipped', [(1, 0.), (1, 1.), (0, None)])
def test_resume_moves_target_as_without_interruption(steps, skipped):
    saved, loaded = Model(), Model()
    saved.steps_since_update = steps
    if skipped is not None:
        saved.skipped_step = torch.tensor(skipped)
    checkpoint = dict(meta={})
    TargetUpdateHook().before_save_checkpoint(
        types.SimpleNamespace(model=saved), checkpoint)
    for resume in (False, True):
        hook, loaded = TargetUpdateHook(), Model()
        runner = types.SimpleNamespace(
            model=loaded, max_iters=5, _resume=resume,
            optim_wrapper=OptimWrapper(torch.optim.SGD(
                [loaded.weight], lr=0.1)))
        hook.after_load_checkpoint(runner, checkpoint)
        hook.before_train(runner)
        if resume:
            assert loaded.steps_since_update == steps
            assert bool(loaded.skipped_step) == bool(skipped)
        else:  # only the weights are of the checkpoint
            assert loaded.steps_since_update == 1
            assert loaded.skipped_step is None
