import pytest
import torch
from mmengine.utils import digit_version
from torchvision.transforms.v2 import functional as tv

from univip_mm.models import photometric
from univip_mm.models.augment_params import (
    NUM_UNIFORMS,
    Augmentation,
    sample_params,
)
from univip_mm.models.pixel_params import (
    LUMA,
    compute_pixel_params,
    count_hue_shifts,
    find_steps,
    upload,
)

NO_AUGMENTATION = Augmentation(
    flip_prob=0, jitter_prob=0, gray_prob=0, blur_prob=0, solarize_prob=0)
CPU = torch.device('cpu')


def sample(augmentation, seed=0):
    uniforms = torch.rand(
        6, NUM_UNIFORMS, generator=torch.Generator().manual_seed(seed))
    return sample_params(uniforms.numpy(), augmentation)


def pixel_params(params, augmentation, radius=11):
    """Return the arguments of ``augment`` that follow the images."""
    hue_shifts = count_hue_shifts([augmentation])
    arrays = compute_pixel_params(params, augmentation, hue_shifts, radius)
    return upload([arrays], CPU)[0], find_steps(arrays, hue_shifts)


@pytest.fixture
def images():
    torch.manual_seed(0)
    images = torch.rand(6, 3, 20, 30)
    images[0, :, :5] = 0.5  # gray pixels without a hue
    images[1] = images[1].round()  # saturated pixels
    return images


def test_blend_matches_torchvision_per_image(images):
    theirs = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation)
    for first in range(3):  # each image by each operation
        operations = (torch.arange(6) + first) % 3
        factors = torch.linspace(0., 1.7, 6).roll(first)
        luma = (operations > 0).view(-1, 1) * torch.tensor(LUMA)
        out = photometric.blend_(images.clone(), 1 - factors, luma,
                                 (operations == 2).float())
        for image, number, factor, changed in zip(
                images, operations, factors, out):
            expected = theirs[number](image, factor.item())
            torch.testing.assert_close(changed, expected, rtol=0, atol=2e-5)


def test_shift_hue_matches_torchvision(images):
    shifts = torch.linspace(-1 / 6, 1 / 6, len(images))
    out = photometric.shift_hue_(
        images.clone(), shifts.sign(), 1 - 6 * shifts.abs())
    for image, shift, changed in zip(images, shifts, out):
        expected = tv.adjust_hue(image, shift.item())
        torch.testing.assert_close(changed, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize('hue', [0.2, 0.5])
def test_augment_shifts_hue_by_up_to_half_a_turn(images, hue):
    only_hue = Augmentation(
        flip_prob=0, jitter_prob=1, brightness=0, contrast=0, saturation=0,
        hue=hue, gray_prob=0, blur_prob=0)
    params = sample(only_hue)
    out = photometric.augment(255 * images, *pixel_params(params, only_hue))
    for image, amount, changed in zip(images, params.amount, out):
        expected = tv.adjust_hue(image, float(amount[3]))
        torch.testing.assert_close(changed, expected, rtol=0, atol=2e-5)
    assert abs(params.amount[:, 3]).max() > 1 / 6


def test_to_gray_matches_torchvision(images):
    torch.testing.assert_close(
        photometric.to_gray(images), tv.rgb_to_grayscale(images))


@pytest.mark.parametrize('size', [(224, 224), (96, 96), (20, 30), (8, 12)])
def test_blur_matches_torchvision(size):
    images = torch.rand(6, 3, *size)
    kernel = min(23, 2 * min(size) - 1)
    augmentation = Augmentation(blur_prob=0.5, blur_kernel=kernel)
    params = sample(augmentation)
    values, _ = pixel_params(params, augmentation, kernel // 2)
    out = photometric.blur(images, values.blur)
    for image, sigma, is_blurred, changed in zip(
            images, params.sigma, params.blur, out):
        expected = image
        if is_blurred:
            expected = tv.gaussian_blur(image, [kernel, kernel], [sigma])
        torch.testing.assert_close(changed, expected, rtol=0, atol=1e-5)
    assert 0 < params.blur.sum() < 6


def test_augment_matches_torchvision_image_by_image(images):
    augmentation = Augmentation(
        jitter_prob=0.8, gray_prob=0.3, blur_prob=0.5, solarize_prob=0.5,
        blur_kernel=9)
    params = sample(augmentation, seed=3)
    out = photometric.augment(
        255 * images, *pixel_params(params, augmentation))
    adjust = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation,
              tv.adjust_hue)
    for i, expected in enumerate(images):
        if params.flip[i]:
            expected = tv.horizontal_flip(expected)
        if params.jitter[i]:
            for number in params.order[i].tolist():
                expected = adjust[number](expected,
                                          float(params.amount[i, number]))
        if params.gray[i]:
            expected = tv.rgb_to_grayscale(expected, 3)
        if params.blur[i]:
            expected = tv.gaussian_blur(expected, [9, 9],
                                        [float(params.sigma[i])])
        if params.solarize[i]:
            expected = tv.solarize(expected, 128 / 255)
        torch.testing.assert_close(out[i], expected, rtol=0, atol=5e-5)
    assert 0 < params.jitter.sum() < 6 and 0 < params.blur.sum() < 6


def test_augment_leaves_unselected_images_bit_identical(images):
    # The batch needs all operations, but half of the images need none.
    pixels = (255 * images).to(torch.uint8)
    augmentation = Augmentation(solarize_prob=1, hue=0.5)
    _, steps = pixel_params(sample(augmentation), augmentation)
    assert steps.flip and any(steps.blends) and steps.solarize
    assert steps.hue and steps.gray and steps.blur
    neutral, no_steps = pixel_params(
        sample(NO_AUGMENTATION), NO_AUGMENTATION)
    for needed in (steps, steps._replace(blends=(True, ) * 6), no_steps):
        out = photometric.augment(pixels, neutral, needed)
        assert torch.equal(out, pixels / 255)


def test_augment_does_not_modify_its_input(images):
    before = images.clone()
    for augmentation in (Augmentation(), NO_AUGMENTATION):
        photometric.augment(
            images, *pixel_params(sample(augmentation), augmentation))
    assert torch.equal(images, before)


@pytest.mark.skipif(digit_version(torch.__version__) < digit_version('2.4'),
                    reason='torch.compile of older versions is incomplete')
def test_augment_compiles_to_one_graph(images):
    augmentation = Augmentation(solarize_prob=0.5)
    arguments = pixel_params(sample(augmentation), augmentation)
    compiled = torch.compile(
        photometric.augment, backend='eager', fullgraph=True)
    torch.testing.assert_close(
        compiled(255 * images, *arguments),
        photometric.augment(255 * images, *arguments), rtol=0, atol=1e-6)
