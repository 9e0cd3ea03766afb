"""Settings of a pre-training, chosen from the images and the devices.

The reference is the paper's COCO recipe: 118,287 images of 640 x 480 pixels,
800 epochs, 8 x 64 images per step, a learning rate of 0.2 per 256 images.
"""
import math
from typing import Any, NamedTuple, Optional

from ..utils.parallel import number_of_workers, share_of_cores

PER_DEVICE = 64  # images of a step (UniVIP, Sec. 4.1)
REFERENCE_BATCH = 512
BASE_MOMENTUM = 0.01  # 1 - 0.99, for REFERENCE_BATCH
STEPS = 184_800  # of the COCO recipe: 800 epochs of 231 steps
MAX_EPOCHS = 800
# A target that averages over more than a fifth of the training would stay
# close to the initial network.
SHARE_OF_TARGET = 5
# COCO's images have a median shorter side of 480 pixels, and the paper's
# proposals a side of at least 64.
COCO_SIDE, COCO_MIN_SIZE, LEAST_MIN_SIZE = 480, 64, 16
FEW, SOME = 1_000, 10_000  # images


class Devices(NamedTuple):
    """Devices of a training.

    Attributes:
        kind (str): 'cuda' or 'cpu'.
        count (int): Number of processes, one per device.
        text (str): Description for the user.
        reason (str): Why these devices are used.
        visible (str, optional): Value of CUDA_VISIBLE_DEVICES, None to keep
            the present one.
        bfloat16 (bool): The GPUs compute in bfloat16.
    """
    kind: str
    count: int
    text: str
    reason: str = 'as given'
    visible: Optional[str] = None
    bfloat16: bool = False


class Choice(NamedTuple):
    """Setting, why it has this value, and the option that changes it."""
    name: str
    value: Any
    reason: str
    option: str


def choose_batch_size(images: int, devices: int,
                      wanted: Optional[int] = None,
                      reason: str = 'as given') -> Choice:
    """Choose the number of images of a step, over all devices.

    Raises:
        ValueError: A device would get less than two images, which batch
            normalization needs.
    """
    if wanted is not None:
        if wanted % devices:
            raise ValueError(
                f'--batch-size is {wanted}, which {devices} devices cannot '
                f'share equally: use a multiple of {devices}')
        if wanted > images:
            raise ValueError(
                f'the batch size is {wanted} ({reason}), but there are only '
                f'{images} images: use a --batch-size of at most {images}')
        value = wanted
    else:
        each = min(PER_DEVICE, images // devices)
        value = each * devices
        reason = (f'{each} per device, all that {images} images allow'
                  if each < PER_DEVICE else
                  f'{PER_DEVICE} per device, as in the paper')
    if value < 2 * devices:
        raise ValueError(
            f'{images} images and a batch size of {value} on {devices} '
            f'device{"s" * (devices > 1)}: each device needs at least 2 '
            'images per step; add images, or use fewer --devices')
    return Choice('batch size', value, reason, '--batch-size')


def steps_per_epoch(images: int, batch_size: int, devices: int) -> int:
    """Return the number of complete batches, as the sampler makes them."""
    return math.ceil(images / devices) // (batch_size // devices)


def choose_epochs(per_epoch: int, wanted: Optional[int] = None,
                  reason: str = 'as given') -> Choice:
    """Choose the number of epochs of ``per_epoch`` steps."""
    if wanted is not None:
        return Choice('epochs', wanted, reason, '--epochs')
    value = min(MAX_EPOCHS, max(1, round(STEPS / per_epoch)))
    reason = (f'the paper trains COCO for {MAX_EPOCHS} epochs'
              if value == MAX_EPOCHS else
              f'as many steps as the paper on COCO ({STEPS:,})')
    return Choice('epochs', value, reason, '--epochs')


def choose_learning_rate(batch_size: int, reference: float) -> Choice:
    """Choose the learning rate, linear in the batch size.

    ``reference`` is that of ``REFERENCE_BATCH`` images.
    """
    value = reference * batch_size / REFERENCE_BATCH
    return Choice('learning rate', float(f'{value:.4g}'),
                  f'{reference * 256 / REFERENCE_BATCH:g} per 256 images',
                  '--set optim_wrapper.optimizer.lr=…')


def choose_momentum(batch_size: int, steps: int) -> Choice:
    """Choose ``base_momentum``, the step of the target to the online network.

    With smaller batches, an image moves the target as far as with the
    reference (1 - tau is linear in the batch size, Busbridge et al. 2023,
    "How to Scale Your EMA", first order), but the target never averages over
    more than a fifth of the training.
    """
    scaled = BASE_MOMENTUM * batch_size / REFERENCE_BATCH
    short = SHARE_OF_TARGET / max(steps, 1)
    value = float(f'{min(max(scaled, short), 0.1):.3g}')
    reason = ('the training is short, so the target follows faster'
              if short > scaled else
              f'{BASE_MOMENTUM} per {REFERENCE_BATCH} images of a step')
    return Choice('EMA momentum', value, reason, '--set model.base_momentum=…')


def choose_warmup(epochs: int, longest: int) -> Choice:
    """Choose the epochs in which the learning rate rises."""
    value = min(longest, epochs // 10)
    reason = f'epochs; a tenth, at most {longest}; then a cosine to 0'
    return Choice('warm-up', value, reason,
                  '--set param_scheduler.0.end=N param_scheduler.1.begin=N'
                  if value else '')


def choose_workers(devices: int) -> Choice:
    """Choose the number of loader processes per device.

    ``devices`` is the number of devices of this machine; it is not used in
    the process group of a launcher.
    """
    return Choice('workers', min(8, share_of_cores(devices)),
                  f'per device, of {number_of_workers()} cores',
                  '--set train_dataloader.num_workers=…')


def choose_min_size(median_side: float,
                    wanted: Optional[int] = None) -> Choice:
    """Choose the smallest side of a proposal, for images of this size.

    ``median_side`` is the median of the shorter sides, in pixels.
    """
    exact = COCO_MIN_SIZE * median_side / COCO_SIDE
    value = max(LEAST_MIN_SIZE, 8 * round(exact / 8))
    if wanted not in (None, value):
        return Choice('object size', wanted, 'pixels at least, as given or '
                      'as when this run began',
                      '--set proposal_rules.min_size=…')
    return Choice(
        'object size', value, f'pixels at least, for shorter sides of '
        f'{median_side:.0f}; {COCO_MIN_SIZE} for {COCO_SIDE} in the paper',
        '--set proposal_rules.min_size=…')


def checkpoint_interval(epochs: int) -> int:
    """Return the epochs between two checkpoints: about twenty in all."""
    return math.ceil(epochs / 20)


def expectation(images: int) -> Optional[str]:
    """Return what to expect of so few images, or None."""
    if images < FEW:
        return (f'{images} images are few: the steps will work, but do not '
                'expect a better backbone from images alone; start from '
                'weights (--init), and see "How many images and epochs do I '
                'need" in the FAQ')
    if images < SOME:
        return (f'{images} images are not many: starting from weights '
                '(--init) usually helps more than more epochs; see "How many '
                'images and epochs do I need" in the FAQ')
    return None
