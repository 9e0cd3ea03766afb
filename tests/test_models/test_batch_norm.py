import copy
import pickle

import torch
from mmengine.model import revert_sync_batchnorm
from torch import nn

from univip_mm.models.batch_norm import count_batches, prepare_batch_norm
from univip_mm.registry import MODELS


class OwnBatchNorm(nn.BatchNorm2d):
    """Layer of a user, which must keep its own forward pass."""

    def forward(self, x):
        return super().forward(x) * 2


def layers():
    """Return a network with each kind of batch norm."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.BatchNorm2d(4), nn.SyncBatchNorm(4), OwnBatchNorm(4),
        nn.BatchNorm2d(4, momentum=None), nn.BatchNorm2d(4, momentum=0.3),
        nn.BatchNorm2d(4, affine=False),
        nn.BatchNorm2d(4, track_running_stats=False),
        revert_sync_batchnorm(nn.SyncBatchNorm(4)), nn.BatchNorm2d(4),
        nn.Flatten(), nn.BatchNorm1d(36), nn.SyncBatchNorm(36),
        nn.LayerNorm(36))
    model[8].eval()  # frozen
    return model


def pair():
    """Return a network, and the same with prepared layers."""
    plain = layers()
    prepared = copy.deepcopy(plain)
    prepare_batch_norm(prepared)
    return plain, prepared


def assert_same_state(plain, other):
    expected, found = plain.state_dict(), other.state_dict()
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
        assert found[name].dtype == value.dtype


def test_batch_norm_is_bit_equal_to_pytorch():
    plain, prepared = pair()
    for passes in (1, 2):
        for _ in range(passes):
            x, gradient = torch.randn(5, 4, 3, 3), torch.randn(5, 36)
            inputs = [x.clone().requires_grad_() for _ in range(2)]
            outputs = [model(y) for model, y in zip((plain, prepared), inputs)]
            for y in outputs:
                y.backward(gradient)
            assert torch.equal(*outputs)
            assert torch.equal(*(y.grad for y in inputs))
        count_batches(prepared, passes)
        assert_same_state(plain, prepared)
    for p, q in zip(plain.parameters(), prepared.parameters()):
        assert torch.equal(p.grad, q.grad)
    for model in (plain.eval(), prepared.eval()):
        model(torch.randn(5, 4, 3, 3))
    count_batches(prepared, 1)
    assert_same_state(plain, prepared)


def test_count_batches_of_resnet_matches_pytorch():
    torch.manual_seed(0)
    plain = MODELS.build(dict(
        type='ResNet', depth=18, base_channels=8, stem_channels=8,
        frozen_stages=1, norm_cfg=dict(type='BN')))
    prepared = copy.deepcopy(plain)
    prepare_batch_norm(prepared)
    for training in (True, True, False, True):
        x = torch.randn(2, 3, 32, 32)
        for model in (plain, prepared):
            model.train(training)  # the first stage stays in eval mode
            for _ in range(3):
                model(x)
        count_batches(prepared, 3)
    assert_same_state(plain, prepared)
    counts = {x.item() for name, x in plain.state_dict().items()
              if name.endswith('num_batches_tracked')}
    assert counts == {0, 9}


def test_prepared_layer_does_not_count_on_its_own():
    _, prepared = pair()
    prepared(torch.randn(5, 4, 3, 3))
    assert [m.num_batches_tracked.item() for m in prepared
            if getattr(m, 'num_batches_tracked', None) is not None] == [
                0, 0, 1, 1, 0, 0, 0, 0, 0, 0]


def test_count_batches_is_one_operation():
    _, prepared = pair()
    calls = []

    class Recorder(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            calls.append(func)
            return func(*args, **(kwargs or {}))

    with Recorder():
        count_batches(prepared, 3)
    assert len(calls) == 1


def test_prepare_batch_norm_keeps_layers_usable():
    plain, prepared = pair()
    prepare_batch_norm(prepared)  # again
    assert repr(prepared) == repr(plain)
    for one, other in zip(plain, prepared):
        assert isinstance(other, type(one))
    assert type(prepared[2]) is OwnBatchNorm
    copies = [copy.deepcopy(prepared), pickle.loads(pickle.dumps(prepared))]
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(
        copy.deepcopy(prepared))
    assert type(converted[0]) is type(converted[1]) is nn.SyncBatchNorm
    prepare_batch_norm(converted)
    reverted = revert_sync_batchnorm(converted)
    prepare_batch_norm(reverted)
    assert not any(isinstance(x, nn.SyncBatchNorm) for x in reverted)
    fresh = layers()
    fresh.load_state_dict(prepared.state_dict())
    x = torch.randn(5, 4, 3, 3)
    expected = plain(x)
    for model in (*copies, prepared, fresh):
        assert torch.equal(model(x), expected)
    reverted[2].__class__ = OwnBatchNorm  # each tool forgets it
    reverted[8].eval()
    torch.testing.assert_close(reverted(x), expected)
