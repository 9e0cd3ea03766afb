import pytest
import torch
from mmengine.structures import BaseDataElement

from univip_mm.models import (
    UniVIPDataPreprocessor,
    data_preprocessor,
    photometric,
)
from univip_mm.registry import MODELS

MEAN = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
STD = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)
NOTHING = dict(
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


def test_is_registered():
    built = MODELS.build(dict(type='univip_mm.UniVIPDataPreprocessor'))
    assert isinstance(built, UniVIPDataPreprocessor)


def test_without_augmentation_only_turns_to_rgb_and_normalises():
    data = views()
    preprocessor = UniVIPDataPreprocessor(scene1=NOTHING, scene2=NOTHING)
    out = preprocessor(data, training=True)['inputs']
    for view, given in zip(out, data['inputs']):
        expected = (given[:, [2, 1, 0]].float() - MEAN) / STD
        torch.testing.assert_close(view, expected, rtol=0, atol=1e-4)


def test_a_seed_gives_the_same_views_and_another_seed_others():
    first, again, other = (
        UniVIPDataPreprocessor(seed=seed)(views(), training=True)['inputs']
        for seed in (7, 7, 8))
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert not any(torch.equal(a, b) for a, b in zip(first, other))


def test_two_batches_in_a_row_are_drawn_anew():
    preprocessor = UniVIPDataPreprocessor(seed=7)
    first, second = (preprocessor(views(), training=True)['inputs'][0]
                     for _ in range(2))
    assert not torch.equal(first, second)


def test_what_is_drawn_depends_on_the_view_seed_alone():
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


def test_as_many_images_at_a_time_as_the_cache_holds_give_the_same(
        monkeypatch):
    whole = UniVIPDataPreprocessor(seed=3)(views(), training=True)['inputs']
    monkeypatch.setattr(data_preprocessor, '_CACHED_VALUES', 1)
    alone = UniVIPDataPreprocessor(seed=3)(views(), training=True)['inputs']
    for a, b in zip(whole, alone):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4)


def test_channels_last_is_another_layout_of_the_same_values():
    plain, last = (
        UniVIPDataPreprocessor(seed=3, channels_last=option)(
            views(), training=True)['inputs'] for option in (False, True))
    for a, b in zip(plain, last):
        assert torch.equal(a, b)
        assert b.is_contiguous(memory_format=torch.channels_last)


def test_values_are_not_clamped_after_normalisation():
    out = UniVIPDataPreprocessor(seed=0)(views(), training=True)['inputs']
    assert min(x.min() for x in out) < -1.5
    assert max(x.max() for x in out) > 1.5


def test_views_get_the_augmentation_of_their_kind(monkeypatch):
    seen = []
    draw = photometric.draw
    monkeypatch.setattr(photometric, 'draw', lambda numbers, a:
                        seen.append(a) or draw(numbers, a))
    preprocessor = UniVIPDataPreprocessor()
    preprocessor(views(num_instances=3), training=True)
    assert seen == [preprocessor.scene1, preprocessor.scene2,
                    preprocessor.instances]
    assert (seen[0].blur_prob, seen[0].solarize_prob) == (1.0, 0.0)
    assert (seen[1].blur_prob, seen[1].solarize_prob) == (0.1, 0.2)


@pytest.mark.parametrize('kernel', [23, 5])
def test_views_of_a_batch_are_changed_as_each_alone(kernel):
    """Scenes go as one batch where their blur is of one kernel."""
    data = views()
    data['data_samples'] = [
        BaseDataElement(metainfo=dict(view_seed=s)) for s in (5, 6, 7)]
    preprocessor = UniVIPDataPreprocessor(scene2=dict(blur_kernel=kernel))
    out = preprocessor(data, training=True)['inputs']
    numbers = preprocessor._draw_numbers(3, 4, data['data_samples'])
    kinds = [preprocessor.scene1, preprocessor.scene2,
             *[preprocessor.instances] * 2]
    for i, (view, kind) in enumerate(zip(data['inputs'], kinds)):
        pixels = photometric.apply(
            view[:, [2, 1, 0]].float() / 255,
            photometric.draw(numbers[:, i], kind), kind)
        torch.testing.assert_close(
            out[i], (255 * pixels - MEAN) / STD, rtol=0, atol=1e-3)


def test_the_target_may_have_its_own_views_of_the_instances():
    def augment(**options):
        data = views(num_instances=3)
        data['data_samples'] = [
            BaseDataElement(metainfo=dict(view_seed=s)) for s in (5, 6, 7)]
        preprocessor = UniVIPDataPreprocessor(**options)
        return preprocessor(data, training=True)['inputs']

    plain, both = augment(), augment(instance_views=2)
    assert len(both) == 2 + 2 * 3
    # What the online branch gets is not drawn anew for that.
    assert all(torch.equal(a, b) for a, b in zip(plain, both))
    assert not any(torch.equal(a, b) for a, b in zip(both[2:], both[5:]))
    both = augment(instance_views=2, instances=NOTHING)
    assert all(torch.equal(a, b) for a, b in zip(both[2:], both[5:]))


def test_out_of_training_one_batch_is_only_normalised():
    images = views()['inputs'][0]
    out = UniVIPDataPreprocessor(to_rgb=False)(dict(inputs=images))
    torch.testing.assert_close(out['inputs'], (images.float() - MEAN) / STD)


def test_pixels_are_prepared_in_float32_under_autocast():
    expected = UniVIPDataPreprocessor(seed=0)(views(), training=True)
    with torch.autocast('cpu', torch.bfloat16):
        out = UniVIPDataPreprocessor(seed=0)(views(), training=True)
    assert torch.equal(out['inputs'][0], expected['inputs'][0])


@pytest.mark.parametrize('options, named', [
    (dict(scene1=dict(flip=0.5)), r'scene1 has no option .*flip'),
    (dict(scene2=dict(blur_prob=2)), r'scene2\.blur_prob is 2'),
    (dict(instance_views=3), 'instance_views is 3'),
])
def test_wrong_options_are_named(options, named):
    with pytest.raises(ValueError, match=named):
        UniVIPDataPreprocessor(**options)
