import random
from types import SimpleNamespace

from torch.utils.data import DataLoader, IterableDataset

from univip_mm.engine import IterSeedHook


class Stream(IterableDataset):
    """Data set without a length, for iteration-based training."""

    def __iter__(self):
        return iter(range(4))


def test_loader_needs_no_length():
    runner = SimpleNamespace(
        seed=0, iter=3, epoch=0, train_dataloader=DataLoader(Stream()),
        train_loop=None)
    numbers = set()
    for _ in range(2):
        IterSeedHook().before_train_epoch(runner)
        numbers.add(random.random())
    assert len(numbers) == 1
