import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from univip_mm.models import photometric
from univip_mm.models.photometric import Augmentation

NOTHING = Augmentation(
    flip_prob=0, jitter_prob=0, gray_prob=0, blur_prob=0, solarize_prob=0)


def numbers(batch, seed=0):
    return torch.rand(batch, photometric.NUMBERS,
                      generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def images():
    torch.manual_seed(0)
    images = torch.rand(6, 3, 20, 30)
    images[0, :, :5] = 0.5  # grey pixels have no hue
    images[1] = images[1].round()  # saturated ones
    return images


def test_each_image_changes_as_torchvision_changes_it_alone(images):
    theirs = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation)
    for first in range(3):  # each of the images by each of them
        operations = (torch.arange(6) + first) % 3
        factors = torch.linspace(0., 1.7, 6).roll(first)
        out = photometric.adjust(images, operations, factors)
        for image, number, factor, changed in zip(
                images, operations, factors, out):
            expected = theirs[number](image, factor.item())
            torch.testing.assert_close(changed, expected, rtol=0, atol=2e-5)


def test_hue_turns_as_torchvision_turns_it(images):
    shifts = torch.linspace(-0.5, 0.5, len(images))
    out = photometric.adjust_hue(images, shifts)
    for image, shift, changed in zip(images, shifts, out):
        expected = tv.adjust_hue(image, shift.item())
        torch.testing.assert_close(changed, expected, rtol=0, atol=2e-5)


def test_gray_is_that_of_torchvision(images):
    torch.testing.assert_close(
        photometric.gray(images), tv.rgb_to_grayscale(images))


@pytest.mark.parametrize('size', [(224, 224), (96, 96), (20, 30), (8, 12)])
def test_blur_is_that_of_torchvision(size):
    images = torch.rand(4, 3, *size)
    sigmas = torch.tensor([0.1, 0.7, 1.3, 2.0])
    kernel = min(23, 2 * min(size) - 1)
    out = photometric.blur(images, sigmas, kernel)
    for image, sigma, changed in zip(images, sigmas, out):
        expected = tv.gaussian_blur(image, [kernel, kernel], [sigma.item()])
        torch.testing.assert_close(changed, expected, rtol=0, atol=1e-5)


def test_blur_of_a_tiny_image_takes_the_widest_kernel_there_is():
    images = torch.rand(2, 3, 1, 3)
    out = photometric.blur(images, torch.tensor([2., 2.]))
    assert out.shape == images.shape and torch.isfinite(out).all()


def test_whole_chain_is_that_of_torchvision_image_by_image(images):
    augmentation = Augmentation(
        jitter_prob=0.8, gray_prob=0.3, blur_prob=0.5, solarize_prob=0.5,
        blur_kernel=9)
    drawn = photometric.draw(numbers(6, seed=3), augmentation)
    out = photometric.apply(images, drawn, augmentation)
    adjust = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation,
              tv.adjust_hue)
    for i, expected in enumerate(images):
        if drawn.flip[i]:
            expected = tv.horizontal_flip(expected)
        if drawn.jitter[i]:
            for number in drawn.order[i].tolist():
                expected = adjust[number](expected,
                                          drawn.amount[i, number].item())
        if drawn.gray[i]:
            expected = tv.rgb_to_grayscale(expected, 3)
        if drawn.blur[i]:
            expected = tv.gaussian_blur(expected, [9, 9],
                                        [drawn.sigma[i].item()])
        if drawn.solarize[i]:
            expected = tv.solarize(expected, 128 / 255)
        torch.testing.assert_close(out[i], expected, rtol=0, atol=5e-5)
    assert 0 < drawn.jitter.sum() < 6 and 0 < drawn.blur.sum() < 6


def test_drawn_values_have_the_stated_frequencies_and_ranges():
    augmentation = Augmentation(
        flip_prob=0.5, jitter_prob=0.8, gray_prob=0.2, blur_prob=0.1,
        solarize_prob=0.2)
    n = 20_000
    drawn = photometric.draw(numbers(n), augmentation)
    for name in ('flip', 'jitter', 'gray', 'blur', 'solarize'):
        prob = getattr(augmentation, f'{name}_prob')
        share = getattr(drawn, name).float().mean().item()
        assert abs(share - prob) < 5 * np.sqrt(prob * (1 - prob) / n), name
    ranges = [(0.6, 1.4), (0.6, 1.4), (0.8, 1.2), (-0.1, 0.1)]
    for (low, high), amount in zip(ranges, drawn.amount.T):
        assert low <= amount.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < amount.max() <= high
        assert abs(amount.mean() - (low + high) / 2) < 0.01
    assert 0.1 <= drawn.sigma.min() and drawn.sigma.max() <= 2.0
    orders, counts = torch.unique(drawn.order, dim=0, return_counts=True)
    assert len(orders) == 24
    assert (counts - n / 24).abs().max() < 5 * np.sqrt(n / 24)


def test_images_of_a_batch_differ_in_what_is_drawn():
    drawn = photometric.draw(numbers(64), Augmentation())
    assert len(drawn.sigma.unique()) == 64
    assert len(drawn.amount[:, 0].unique()) == 64


def test_no_operation_leaves_the_images_and_the_input_alone(images):
    before = images.clone()
    nothing = photometric.draw(numbers(6), NOTHING)
    out = photometric.apply(images, nothing, NOTHING)
    assert torch.equal(out, before)
    photometric.apply(images, photometric.draw(numbers(6), Augmentation()),
                      Augmentation())
    assert torch.equal(images, before)


@pytest.mark.parametrize('option, value', [
    ('flip_prob', 1.5), ('brightness', -1), ('hue', 0.7), ('blur_kernel', 4),
    ('blur_sigma', (0., 1.))])
def test_values_out_of_range_are_told(option, value):
    problems = photometric.check(Augmentation(**{option: value}))
    assert len(problems) == 1 and option in problems[0]
