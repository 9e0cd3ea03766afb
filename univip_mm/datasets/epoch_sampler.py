from collections.abc import Iterator

from mmengine.dataset import DefaultSampler

from ..registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class EpochSampler(DefaultSampler):
    """The host's ``DefaultSampler``, which also tells the data set the seed
    and the epoch, so that the views of an image are a function of (seed,
    epoch, image): the same whatever the number of workers and of processes,
    and after a resume.

    Where the data set has no ``set_epoch``, it does what ``DefaultSampler``
    does.

    Args:
        dataset (Sized): The data set.
        **kwargs: For :class:`mmengine.dataset.DefaultSampler`. The seed is
            the Runner's, unless given.

    Attributes:
        skip (int): How many of this process's images the next epoch leaves
            out at its start, having seen them before an interruption.
    """

    def __init__(self, dataset, **kwargs) -> None:
        super().__init__(dataset, **kwargs)
        self.skip = 0
        self._tell_dataset()

    def __iter__(self) -> Iterator[int]:
        """This process's images in the epoch's order."""
        indices = list(super().__iter__())
        skip, self.skip = self.skip, 0
        return iter(indices[skip:])

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the order and of the views."""
        super().set_epoch(epoch)
        self._tell_dataset()

    def _tell_dataset(self) -> None:
        if hasattr(self.dataset, 'set_epoch'):
            self.dataset.set_epoch(self.seed, self.epoch)
