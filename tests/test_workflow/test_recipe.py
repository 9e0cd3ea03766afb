import pytest
from mmengine.config import Config
from tiny import CONFIGS

from univip_mm.workflow.recipe import (
    Devices,
    checkpoint_interval,
    choose_batch_size,
    choose_epochs,
    choose_learning_rate,
    choose_min_size,
    choose_momentum,
    choose_warmup,
    expectation,
    steps_per_epoch,
)


def test_recipe_of_coco_is_the_papers():
    cfg = Config.fromfile(CONFIGS / 'univip_r50_coco.py')
    batch_size = choose_batch_size(118_287, 8).value
    per_epoch = steps_per_epoch(118_287, batch_size, 8)
    epochs = choose_epochs(per_epoch).value
    assert batch_size == 8 * cfg.train_dataloader.batch_size
    assert epochs == cfg.train_cfg.max_epochs
    assert choose_learning_rate(batch_size, 0.4).value == (
        cfg.optim_wrapper.optimizer.lr)
    assert choose_momentum(batch_size, epochs * per_epoch).value == (
        cfg.model.base_momentum)
    assert choose_warmup(epochs, 4).value == cfg.param_scheduler[0].end
    assert choose_min_size(480).value == 64


@pytest.mark.parametrize('images, devices, expected', [
    (24, 1, 24), (24, 2, 24), (25, 2, 24), (100, 1, 64), (10_000, 4, 256)])
def test_batch_size_fits_images(images, devices, expected):
    assert choose_batch_size(images, devices).value == expected


def test_batch_size_refuses_what_cannot_work():
    for arguments, text in (((1, 1), 'at least 2'), ((3, 2), 'at least 2'),
                            ((100, 2, 33), 'multiple of 2'),
                            ((10, 1, 16), 'only 10 images')):
        with pytest.raises(ValueError, match=text):
            choose_batch_size(*arguments)


def test_epochs_follow_a_budget_of_steps():
    assert choose_epochs(1).value == 800  # few images: not 184,800
    assert choose_epochs(20_000).value == 9  # ImageNet on one GPU
    assert choose_epochs(10**6).value == 1
    assert choose_epochs(231, 5)[1:3] == (5, 'as given')


def test_momentum_is_linear_but_bounded():
    assert choose_momentum(64, 10**6).value == pytest.approx(0.01 / 8)
    assert choose_momentum(64, 1000).value == 0.005  # short
    assert choose_momentum(64, 1).value == 0.1


def test_warmup_is_a_tenth_at_most():
    assert [choose_warmup(x, 4).value for x in (1, 9, 10, 40, 800)] == [
        0, 0, 1, 4, 4]


def test_min_size_follows_the_images():
    assert [choose_min_size(x).value for x in (64, 240, 428, 3000)] == [
        16, 32, 56, 400]


def test_checkpoints_are_about_twenty():
    for epochs in (1, 2, 19, 20, 21, 800):
        number = -(-epochs // checkpoint_interval(epochs))
        assert min(epochs, 10) <= number <= 20


def test_expectation_depends_on_images():
    assert 'few' in expectation(24)
    assert '--init' in expectation(5_000)
    assert expectation(10_000) is None


def test_devices_default_to_float32():
    assert not Devices('cpu', 1, 'CPU').bfloat16
