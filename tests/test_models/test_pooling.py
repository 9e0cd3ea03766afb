import torch

from univip_mm.models.pooling import last_output, pool


def test_last_output_enters_tuples_and_lists():
    last = torch.zeros(2, 3)
    for outputs in (last, (last, ), [torch.ones(1), last], [(1, [2, last])]):
        assert last_output(outputs) is last


def test_pool_averages_maps_only():
    maps = torch.arange(24.).view(1, 2, 3, 4)
    assert pool((None, maps)).tolist() == [[5.5, 17.5]]
    for other in (torch.rand(2, 3), torch.rand(2, 5, 3)):
        assert pool([other]) is other
