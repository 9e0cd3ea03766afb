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
        self.steps_since_update = None
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
