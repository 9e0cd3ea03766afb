import pytest
import torch
from mmengine.structures import BaseDataElement
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from univip_mm.models import (
    UniVIPDataPreprocessor,
    data_preprocessor,
    photometric,
    pixel_params,
)
from univip_mm.models.augment_params import sample_params
from univip_mm.registry import MODELS

MEAN = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
STD = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)
NO_AUGMENTATION = dict(
    flip_prob=0, jitter_prob=0, gray_prob=0, blur_prob=0, solarize_prob=0)


def views(num_instances=2, batch=3):
    generator = torch.Generator().manual_seed(0)
    sizes = [32, 32] + [16] * num_instances
    return dict(
        inputs=[
            torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8,
                          generator=generator) for size in sizes
        ],
        data_samples=None)


def test_data_preprocessor_is_registered():
    built = MODELS.build(dict(type='univip_mm.UniVIPDataPreprocessor'))
    assert isinstance(built, UniVIPDataPreprocessor)


def test_no_augmentation_gives_normalized_rgb():
    data = views()
    preprocessor = UniVIPDataPreprocessor(
        scene1=NO_AUGMENTATION, scene2=NO_AUGMENTATION)
    out = preprocessor(data, training=True)['inputs']
    for view, given in zip(out, data['inputs']):
        expected = (given[:, [2, 1, 0]].float() - MEAN) / STD
        torch.testing.assert_close(view, expected, rtol=0, atol=1e-4)


def test_seed_determines_the_views():
    first, again, other = (
        UniVIPDataPreprocessor(seed=seed)(views(), training=True)['inputs']
        for seed in (7, 7, 8))
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert not any(torch.equal(a, b) for a, b in zip(first, other))


def test_consecutive_batches_get_different_parameters():
    preprocessor = UniVIPDataPreprocessor(seed=7)
    first, second = (preprocessor(views(), training=True)['inputs'][0]
                     for _ in range(2))
    assert not torch.equal(first, second)


def test_augmentation_depends_only_on_view_seed():
    def augment(seeds, images, seed):
        data = views()
        data['inputs'] = [view[images] for view in data['inputs']]
        data['data_samples'] = [
            BaseDataElement(metainfo=dict(view_seed=s)) for s in seeds]
        preprocessor = UniVIPDataPreprocessor(seed=seed)
        return preprocessor(data, training=True)['inputs']

    together = augment([5, 2**63 - 1, 7], [0, 1, 2], seed=0)
    for i, s in enumerate([5, 2**63 - 1, 7]):
        alone = augment([s], [i], seed=1)
        assert all(torch.equal(a[0], b[i]) for a, b in zip(alone, together))
    other = augment([6, 2**63 - 2, 8], [0, 1, 2], seed=0)
    assert not torch.equal(other[0], together[0])


def test_chunk_size_does_not_change_the_views(monkeypatch):
    whole = UniVIPDataPreprocessor(seed=3)(views(), training=True)['inputs']
    monkeypatch.setattr(data_preprocessor, '_CPU_CHUNK_VALUES', 1)
    alone = UniVIPDataPreprocessor(seed=3)(views(), training=True)['inputs']
    for a, b in zip(whole, alone):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4)


def test_channels_last_changes_only_the_layout():
    plain, last = (
        UniVIPDataPreprocessor(seed=3, channels_last=option)(
            views(), training=True)['inputs'] for option in (False, True))
    for a, b in zip(plain, last):
        assert torch.equal(a, b)
        assert b.is_contiguous(memory_format=torch.channels_last)


def test_values_are_not_clamped_after_normalization():
    out = UniVIPDataPreprocessor(seed=0)(views(), training=True)['inputs']
    assert min(x.min() for x in out) < -1.5
    assert max(x.max() for x in out) > 1.5


def test_each_kind_of_view_gets_its_options(monkeypatch):
    seen = []
    monkeypatch.setattr(
        data_preprocessor, 'sample_params',
        lambda uniforms, a: seen.append(a) or sample_params(uniforms, a))
    preprocessor = UniVIPDataPreprocessor()
    preprocessor(views(num_instances=3), training=True)
    assert seen == [preprocessor.scene1, preprocessor.scene2,
                    preprocessor.instances]
    assert (seen[0].blur_prob, seen[0].solarize_prob) == (1.0, 0.0)
    assert (seen[1].blur_prob, seen[1].solarize_prob) == (0.1, 0.2)


@pytest.mark.parametrize('options', [{}, dict(blur_kernel=5, hue=0.5)])
def test_views_match_augmentation_one_by_one(options):
    # Scenes with different options are augmented as one batch.
    data = views()
    data['data_samples'] = [
        BaseDataElement(metainfo=dict(view_seed=s)) for s in (5, 6, 7)]
    preprocessor = UniVIPDataPreprocessor(scene2=options)
    out = preprocessor(data, training=True)['inputs']
    uniforms = preprocessor._sample_uniform(3, 4, data['data_samples'])
    kinds = [preprocessor.scene1, preprocessor.scene2,
             *[preprocessor.instances] * 2]
    for i, (view, kind) in enumerate(zip(data['inputs'], kinds)):
        shifts = pixel_params.count_hue_shifts([kind])
        arrays = pixel_params.compute_pixel_params(
            sample_params(uniforms[:, i], kind), kind, shifts, radius=11)
        params, = pixel_params.upload([arrays], view.device)
        pixels = photometric.augment(
            view[:, [2, 1, 0]], params,
            pixel_params.find_steps(arrays, shifts))
        torch.testing.assert_close(
            out[i], (255 * pixels - MEAN) / STD, rtol=0, atol=1e-3)


class OperationLog(TorchDispatchMode):
    """Names of the operations that are not views."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if not function.is_view:
            self.names.append(str(function))
        return function(*args, **(kwargs or {}))


def test_device_gets_few_operations_and_one_upload():
    # The device meta gets a whole batch at once, as a GPU does. Reading a
    # value from this device is an error.
    given = [x.to('meta') for x in views(4, batch=16)['inputs']]
    preprocessor = UniVIPDataPreprocessor(seed=0).to('meta')
    preprocessor._augment_views(given, None)  # fills the cache
    with OperationLog() as log:
        out = preprocessor._augment_views(given, None)
    assert [x.device.type for x in out] == ['meta'] * 6
    assert len(log.names) <= 125
    assert log.names.count('aten._to_copy.default') == 1


class CallLog(TorchFunctionMode):
    """Names of the functions and methods of PyTorch that Python calls."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.names.add(func.__name__)
        return func(*args, **(kwargs or {}))


def test_augmentation_does_not_wait_for_the_device():
    preprocessor = UniVIPDataPreprocessor(seed=0)
    data = views(batch=16)
    preprocessor(data, training=True)  # fills the cache
    with CallLog() as calls, OperationLog() as operations:
        preprocessor(data, training=True)
    # On a GPU, the CPU waits for values, and for uploads of lists.
    for name in ('nonzero', '_local_scalar_dense', 'index', 'lift'):
        assert not any(name in x for x in operations.names), name
    assert 'lerp_' in calls.names
    assert not calls.names & {'tensor', 'new_tensor', 'as_tensor'}


def test_two_instance_views_add_target_views():
    def augment(**options):
        data = views(num_instances=3)
        data['data_samples'] = [
            BaseDataElement(metainfo=dict(view_seed=s)) for s in (5, 6, 7)]
        preprocessor = UniVIPDataPreprocessor(**options)
        return preprocessor(data, training=True)['inputs']

    plain, both = augment(), augment(instance_views=2)
    assert len(both) == 2 + 2 * 3
    # The online views stay the same.
    assert all(torch.equal(a, b) for a, b in zip(plain, both))
    assert not any(torch.equal(a, b) for a, b in zip(both[2:], both[5:]))
    both = augment(instance_views=2, instances=NO_AUGMENTATION)
    assert all(torch.equal(a, b) for a, b in zip(both[2:], both[5:]))


def test_batch_outside_training_is_only_normalized():
    images = views()['inputs'][0]
    out = UniVIPDataPreprocessor(to_rgb=False)(dict(inputs=images))
    torch.testing.assert_close(out['inputs'], (images.float() - MEAN) / STD)


def test_pixels_stay_float32_under_autocast():
    expected = UniVIPDataPreprocessor(seed=0)(views(), training=True)
    with torch.autocast('cpu', torch.bfloat16):
        out = UniVIPDataPreprocessor(seed=0)(views(), training=True)
    assert torch.equal(out['inputs'][0], expected['inputs'][0])


@pytest.mark.parametrize('options, message', [
    (dict(scene1=dict(flip=0.5)), r'scene1 has unknown options .*flip'),
    (dict(scene2=dict(blur_prob=2)), r'scene2\.blur_prob is 2'),
    (dict(instance_views=3), 'instance_views is 3'),
])
def test_wrong_options_are_rejected(options, message):
    with pytest.raises(ValueError, match=message):
        UniVIPDataPreprocessor(**options)
