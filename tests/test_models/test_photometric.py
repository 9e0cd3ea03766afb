import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from univip_mm.models import photometric
from univip_mm.models.augment_params import (
    NUM_UNIFORMS,
    Augmentation,
    sample_params,
)

NO_AUGMENTATION = Augmentation(
    flip_prob=0, jitter_prob=0, gray_prob=0, blur_prob=0, solarize_prob=0)


def sample(augmentation, seed=0):
    uniforms = torch.rand(
        6, NUM_UNIFORMS, generator=torch.Generator().manual_seed(seed))
    return sample_params(uniforms, augmentation)


@pytest.fixture
def images():
    torch.manual_seed(0)
    images = torch.rand(6, 3, 20, 30)
    images[0, :, :5] = 0.5  # gray pixels without a hue
    images[1] = images[1].round()  # saturated pixels
    return images


def test_adjust_by_blend_matches_torchvision_per_image(images):
    theirs = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation)
    for first in range(3):  # each image by each operation
        operations = (torch.arange(6) + first) % 3
        factors = torch.linspace(0., 1.7, 6).roll(first)
        out = photometric.adjust_by_blend(images, operations, factors)
        for image, number, factor, changed in zip(
                images, operations, factors, out):
            expected = theirs[number](image, factor.item())
            torch.testing.assert_close(changed, expected, rtol=0, atol=2e-5)


def test_adjust_hue_matches_torchvision(images):
    shifts = torch.linspace(-0.5, 0.5, len(images))
    out = photometric.adjust_hue(images, shifts)
    for image, shift, changed in zip(images, shifts, out):
        expected = tv.adjust_hue(image, shift.item())
        torch.testing.assert_close(changed, expected, rtol=0, atol=2e-5)


def test_to_gray_matches_torchvision(images):
    torch.testing.assert_close(
        photometric.to_gray(images), tv.rgb_to_grayscale(images))


@pytest.mark.parametrize('size', [(224, 224), (96, 96), (20, 30), (8, 12)])
def test_gaussian_blur_matches_torchvision(size):
    images = torch.rand(4, 3, *size)
    sigmas = torch.tensor([0.1, 0.7, 1.3, 2.0])
    kernel = min(23, 2 * min(size) - 1)
    out = photometric.gaussian_blur(images, sigmas, kernel)
    for image, sigma, changed in zip(images, sigmas, out):
        expected = tv.gaussian_blur(image, [kernel, kernel], [sigma.item()])
        torch.testing.assert_close(changed, expected, rtol=0, atol=1e-5)


def test_gaussian_blur_limits_kernel_on_tiny_images():
    images = torch.rand(2, 3, 1, 3)
    out = photometric.gaussian_blur(images, torch.tensor([2., 2.]))
    assert out.shape == images.shape and torch.isfinite(out).all()


def test_augment_matches_torchvision_image_by_image(images):
    augmentation = Augmentation(
        jitter_prob=0.8, gray_prob=0.3, blur_prob=0.5, solarize_prob=0.5,
        blur_kernel=9)
    params = sample(augmentation, seed=3)
    out = photometric.augment(images, params, augmentation)
    adjust = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation,
              tv.adjust_hue)
    for i, expected in enumerate(images):
        if params.flip[i]:
            expected = tv.horizontal_flip(expected)
        if params.jitter[i]:
            for number in params.order[i].tolist():
                expected = adjust[number](expected,
                                          params.amount[i, number].item())
        if params.gray[i]:
            expected = tv.rgb_to_grayscale(expected, 3)
        if params.blur[i]:
            expected = tv.gaussian_blur(expected, [9, 9],
                                        [params.sigma[i].item()])
        if params.solarize[i]:
            expected = tv.solarize(expected, 128 / 255)
        torch.testing.assert_close(out[i], expected, rtol=0, atol=5e-5)
    assert 0 < params.jitter.sum() < 6 and 0 < params.blur.sum() < 6


def test_augment_without_operations_returns_the_images(images):
    out = photometric.augment(
        images, sample(NO_AUGMENTATION), NO_AUGMENTATION)
    assert torch.equal(out, images)


def test_augment_does_not_modify_its_input(images):
    before = images.clone()
    photometric.augment(images, sample(Augmentation()), Augmentation())
    assert torch.equal(images, before)
