"""Sampler that makes the views a function of seed, epoch and image."""
from collections.abc import Iterator, Sized

from mmengine.dataset import DefaultSampler

from ..registry import DATA_SAMPLERS
from .wrappers import set_epoch


@DATA_SAMPLERS.register_module()
class EpochSampler(DefaultSampler):
    """``DefaultSampler`` that passes the seed and epoch to the data set.

    The views of an image are then a function of (seed, epoch, image): they do
    not depend on the number of workers or processes, or on a resume. For a
    data set without ``set_epoch``, the class equals ``DefaultSampler``. The
    data set can be in the wrappers of :func:`.wrappers.leaves`.

    Args:
        dataset (Sized): The data set.
        **kwargs: Arguments of :class:`mmengine.dataset.DefaultSampler`. The
            Runner sets ``seed`` if it is not given.

    Attributes:
        skip (int): Number of this process's images to leave out at the start
            of the next epoch, because they were used before an interruption.

    Raises:
        ValueError: The data set is in another wrapper.
    """

    def __init__(self, dataset: Sized, **kwargs) -> None:
        super().__init__(dataset, **kwargs)
        self.skip = 0
        set_epoch(self.dataset, self.seed, self.epoch)

    def __iter__(self) -> Iterator[int]:
        """Iterate over this process's images of the epoch."""
        indices = list(super().__iter__())
        skip, self.skip = self.skip, 0
        return iter(indices[skip:])

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that determines the order and the views."""
        super().set_epoch(epoch)
        set_epoch(self.dataset, self.seed, self.epoch)
