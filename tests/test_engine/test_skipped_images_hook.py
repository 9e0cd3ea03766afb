from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MMLogger

from univip_mm.engine import SkippedImagesHook
from univip_mm.engine.hooks import skipped_images_hook


class Data:

    def __init__(self, number, unreadable):
        self.number = number
        self.is_unreadable = torch.zeros(number, dtype=torch.uint8)
        self.is_unreadable[unreadable] = 1

    def __len__(self):
        return self.number

    def get_data_info(self, index):
        return dict(img_path=f'{index}.jpg')


def end_epoch(dataset):
    SkippedImagesHook().after_train_epoch(
        SimpleNamespace(
            train_dataloader=SimpleNamespace(dataset=dataset),
            logger=MMLogger.get_current_instance()))


def test_unreadable_images_are_counted_and_named(logged):
    end_epoch(Data(40, [3, 17]))
    assert logged == [
        '2 of 40 images (5.00%) could not be read so far and were replaced '
        'by others: 3.jpg, 17.jpg'
    ]


def test_the_first_ten_are_named(logged):
    end_epoch(Data(40, list(range(20, 32))))
    assert '12 of 40 images (30.00%)' in logged[0]
    assert logged[0].endswith('28.jpg, 29.jpg, ...')


@pytest.mark.parametrize('dataset', [Data(40, []), [1, 2, 3]])
def test_silent_where_all_were_read_or_nobody_counts(logged, dataset):
    end_epoch(dataset)
    assert logged == []


def test_an_image_counts_once_whichever_rank_met_it(logged, monkeypatch):
    other_rank = Data(8, [1, 2]).is_unreadable

    def all_reduce(marks, op):
        assert op == 'max'
        marks.copy_(torch.maximum(marks, other_rank))

    monkeypatch.setattr(skipped_images_hook, 'all_reduce', all_reduce)
    dataset = Data(8, [2, 5])
    end_epoch(dataset)
    assert '3 of 8 images' in logged[0]
    assert '1.jpg, 2.jpg, 5.jpg' in logged[0]
    assert dataset.is_unreadable.sum() == 2  # each rank keeps its own
