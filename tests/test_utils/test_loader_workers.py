import multiprocessing

import pytest
from torch.utils.data import DataLoader

from univip_mm.utils.loader_workers import stop_workers


@pytest.mark.parametrize('batches', [1, 4])
def test_stop_workers_ends_persistent_workers(batches):
    others = multiprocessing.active_children()  # of earlier tests
    loader = DataLoader(range(8), 2, num_workers=2, persistent_workers=True)
    batch = iter(loader)
    for _ in range(batches):  # also within an epoch
        next(batch)
    workers = {*multiprocessing.active_children()}.difference(others)
    assert len(workers) == 2
    stop_workers(loader)
    assert not any(x.is_alive() for x in workers)
    stop_workers(loader)


def test_stop_workers_accepts_loaders_without_workers():
    loader = DataLoader(range(8), 2)
    assert len(list(loader)) == 4
    stop_workers(loader)
    stop_workers(dict(batch_size=2))  # not built yet
