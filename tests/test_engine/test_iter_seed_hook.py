import random
from types import SimpleNamespace

from torch.utils.data import DataLoader, IterableDataset

from univip_mm.engine import IterSeedHook
from univip_mm.engine.hooks import iter_seed_hook


class Stream(IterableDataset):
    """Data set without a length, for iteration-based training."""

    def __iter__(self):
        return iter(range(4))


def test_loader_needs_no_length():
    runner = SimpleNamespace(
        seed=0, iter=3, epoch=0, cfg={}, train_loop=None,
        train_dataloader=DataLoader(Stream()))
    numbers = set()
    for _ in range(2):
        IterSeedHook().before_train_epoch(runner)
        numbers.add(random.random())
    assert len(numbers) == 1


def test_ranks_share_one_order_of_the_images(monkeypatch):
    """With `diff_rank_seed`, the seed of the Runner contains the rank."""
    seeds = set()
    for rank in (0, 1):
        monkeypatch.setattr(iter_seed_hook, 'get_rank',
                            lambda rank=rank: rank)
        sampler = SimpleNamespace(seed=None)
        IterSeedHook().before_train_epoch(SimpleNamespace(
            seed=5 + rank, iter=0, epoch=0, train_loop=None,
            cfg=dict(randomness=dict(diff_rank_seed=True)),
            train_dataloader=SimpleNamespace(sampler=sampler)))
        seeds.add(sampler.seed)
    assert seeds == {5}
