import numpy as np
import torch

from univip_mm.models.augment_params import (
    NUM_UNIFORMS,
    Augmentation,
    sample_params,
)
from univip_mm.models.pixel_params import (
    compute_pixel_params,
    concatenate,
    count_hue_shifts,
    find_steps,
    upload,
)


def compute(batch, radius=11, **options):
    uniforms = np.random.default_rng(0).random(
        (batch, NUM_UNIFORMS), np.float32)
    augmentation = Augmentation(**options)
    return compute_pixel_params(
        sample_params(uniforms, augmentation), augmentation, 1, radius)


def test_upload_keeps_the_values_of_all_batches():
    batches = [compute(5), compute(3, radius=4)]
    for arrays, tensors in zip(batches, upload(batches, torch.device('cpu'))):
        for array, tensor in zip(arrays, tensors):
            np.testing.assert_array_equal(tensor.numpy(), array)


def test_concatenate_inverts_select():
    whole = compute(5)
    parts = [whole.select(slice(0, 2)), whole.select(slice(2, 5))]
    for array, joined in zip(whole, concatenate(parts)):
        np.testing.assert_array_equal(array, joined)


def test_find_steps_skips_operations_that_no_image_needs():
    nothing = dict(flip_prob=0, jitter_prob=0, gray_prob=0, blur_prob=0)
    steps = find_steps(compute(8, **nothing), hue_shifts=1)
    assert not any((*steps.blends, *steps[:1], *steps[2:]))
    blurred = find_steps(compute(8, **{**nothing, 'blur_prob': 1}), 1)
    assert blurred == steps._replace(blur=True)
    jitter = find_steps(compute(64, **{**nothing, 'jitter_prob': 1}), 2)
    assert jitter == steps._replace(blends=(True, ) * 6, hue=2)


def test_count_hue_shifts_limits_a_shift_to_a_sixth():
    for hue, number in ((0, 1), (0.1, 1), (1 / 6, 1), (0.2, 2), (0.5, 3)):
        assert count_hue_shifts(
            [Augmentation(hue=0), Augmentation(hue=hue)]) == number
