import os
from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MMLogger

from univip_mm.engine import SkippedImagesHook
from univip_mm.engine.hooks import skipped_images_hook
from univip_mm.io.images import (
    CUT_OFF,
    EMPTY,
    MISSING,
    REASONS,
    TOO_SMALL,
    TooManyUnreadableError,
)


class Data:
    """Data set with skipped images."""

    def __init__(self, number, reasons, unreadable=()):
        self.number = number
        self.unreadable = list(unreadable)
        self.skipped = torch.zeros(number, dtype=torch.uint8)
        for index, reason in reasons.items():
            self.skip(index, reason)

    def skip(self, index, reason=MISSING):
        self.skipped[index] = 1 + REASONS.index(reason)

    def __len__(self):
        return self.number

    def get_data_info(self, index):
        return dict(img_path=f'{index}.jpg')


class Model(torch.nn.Module):
    """Model whose preprocessor decodes images."""

    def __init__(self):
        super().__init__()
        self.data_preprocessor = torch.nn.Module()
        self.data_preprocessor.jpeg_decoder = SimpleNamespace(unreadable={})


class Loader(list):
    """Loader of 20 batches."""

    def __init__(self, dataset):
        super().__init__([None] * 20)
        self.dataset = dataset


@pytest.fixture
def run(tmp_path, monkeypatch):

    def save(runner, folder, name, by_epoch, meta):
        runner.saved.append((name, by_epoch, meta))
        return name

    monkeypatch.setattr(
        skipped_images_hook, 'save_checkpoint_atomically', save)

    class Run:
        """The parts of a Runner that the hook uses."""

        def __init__(self, dataset, **options):
            self.hook = SkippedImagesHook(**options)
            self.runner = SimpleNamespace(
                train_dataloader=Loader(dataset), saved=[], model=Model(),
                logger=MMLogger.get_current_instance(),
                log_dir=str(tmp_path), work_dir=str(tmp_path), iter=0)

        def end_epoch(self):
            self.hook.after_train_epoch(self.runner)

        def iterate(self, number):
            for _ in range(number):
                self.hook.after_train_iter(self.runner, self.runner.iter)
                self.runner.iter += 1

        @property
        def listed(self):
            path = tmp_path / 'skipped_images.txt'
            return path.read_text().splitlines() if path.exists() else []

    return Run


def test_report_counts_reasons_and_names_images(run, logged):
    training = run(Data(40, {3: EMPTY, 17: MISSING, 5: EMPTY}),
                   max_unreadable=.1)
    training.end_epoch()
    assert len(logged) == 1
    assert logged[0].startswith(
        '3 of 40 images (7.50%) could not be read so far and were replaced '
        'by others (the file is missing: 1, the file is empty: 2): 3.jpg, '
        "5.jpg, 17.jpg; all are in '")
    assert training.listed == [
        '3.jpg\tthe file is empty', '5.jpg\tthe file is empty',
        '17.jpg\tthe file is missing']


def test_log_names_ten_images_and_file_all(run, logged):
    training = run(Data(40, dict.fromkeys(range(20, 32), MISSING)),
                   max_unreadable=1)
    training.end_epoch()
    assert '12 of 40 images (30.00%)' in logged[0]
    assert '28.jpg, 29.jpg, ...; all' in logged[0]
    assert len(training.listed) == 12


def test_file_lists_each_image_once(run):
    data = Data(40, {3: MISSING})
    training = run(data, max_unreadable=1)
    training.end_epoch()
    data.skip(8, EMPTY)
    training.iterate(100)
    training.end_epoch()
    assert training.listed == ['3.jpg\tthe file is missing',
                               '8.jpg\tthe file is empty']


@pytest.mark.parametrize('dataset', [Data(40, {}), [1, 2, 3]])
def test_hook_logs_nothing_without_skipped_images(run, logged, dataset):
    training = run(dataset)
    training.iterate(50)
    training.end_epoch()
    assert logged == [] and training.listed == []


def test_max_unreadable_stops_within_epoch(run):
    data = Data(200, {})
    training = run(data)
    training.iterate(10)
    data.skip(7), data.skip(9)
    training.iterate(60)  # exactly 1% is allowed
    data.skip(150)
    training.iterate(29)
    with pytest.raises(TooManyUnreadableError) as e:
        training.iterate(1)
    text = str(e.value)
    assert text.startswith('3 of 200 images (1.50%) cannot be read')
    assert 'the file is missing: 3' in text and '150.jpg' in text
    assert 'max_unreadable of SkippedImagesHook is 1.00%' in text
    assert 'skipped_images.txt' in text and '\n' not in text
    assert len(training.listed) == 3
    assert training.runner.saved == [
        ('stopped.pth', False, dict(epoch=5, iter=100))]
    assert text.endswith("; saved 'stopped.pth', from which --resume "
                         'continues')


def test_files_that_the_device_cannot_decode_count(run, logged, monkeypatch):
    training = run(Data(200, {7: EMPTY}))
    decoder = training.runner.model.data_preprocessor.jpeg_decoder
    decoder.unreadable['a.jpg'] = CUT_OFF
    training.end_epoch()
    training.end_epoch()
    assert training.listed == ['7.jpg\tthe file is empty',
                               'a.jpg\tthe file ends before the image does']
    assert '1 of 200 images (0.50%) could not be decoded' in logged[0]
    assert 'a.jpg' in logged[0] and '1 of 200 images (0.50%)' in logged[1]
    # The same file and another one on another rank.
    monkeypatch.setattr(skipped_images_hook, 'all_gather_object', lambda x: [
        x, {'a.jpg': CUT_OFF, 'b.jpg': CUT_OFF}])
    decoder.unreadable['c.jpg'] = CUT_OFF
    with pytest.raises(TooManyUnreadableError, match=(
            '1 of 200 .*; 3 of 200 images .1.50%. .*a.jpg, c.jpg, b.jpg')):
        training.end_epoch()
    assert len(training.listed) == 4


def test_undecoded_files_count_without_a_record(run):
    training = run(list(range(40)))
    training.runner.model.data_preprocessor.jpeg_decoder.unreadable[
        'a.jpg'] = CUT_OFF
    with pytest.raises(TooManyUnreadableError, match='1 of 40 images'):
        training.end_epoch()
    assert training.listed == ['a.jpg\tthe file ends before the image does']


def test_file_met_by_decoder_and_worker_is_listed_once(run):
    data = Data(200, {})
    training = run(data)
    training.runner.model.data_preprocessor.jpeg_decoder.unreadable[
        '7.jpg'] = CUT_OFF
    training.end_epoch()
    data.skip(7, CUT_OFF)  # by the view sheet, in a worker
    training.end_epoch()
    assert training.listed == ['7.jpg\tthe file ends before the image does']


def test_not_searched_images_stop_before_first_step(run):
    training = run(Data(98, {}, ['a\n.jpg', 'b.jpg']))
    with pytest.raises(TooManyUnreadableError) as e:
        training.hook.before_train(training.runner)
    text = str(e.value)
    assert text.startswith('2 of 100 images (2.00%) could not be read by the '
                           r'proposal search: a\n.jpg, b.jpg; ')
    assert text.endswith('default_hooks.skipped_images.max_unreadable=0.02')
    assert training.listed == [
        r'a\n.jpg' + '\tnot read by the proposal search',
        'b.jpg\tnot read by the proposal search']
    assert training.runner.saved == []


def test_not_searched_images_count_within_epoch(run):
    data = Data(98, {}, ['a.jpg', 'b.jpg'])
    training = run(data, max_unreadable=.02)
    training.hook.before_train(training.runner)
    training.iterate(50)
    data.skip(3)
    with pytest.raises(TooManyUnreadableError) as e:
        training.iterate(50)
    assert 'the proposal search could not read 2 others' in str(e.value)
    assert str(e.value).count('max_unreadable=0.03') == 1


def test_stop_names_a_checkpoint_that_cannot_be_saved(run, monkeypatch):

    def is_full(*args, **kwargs):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(
        skipped_images_hook, 'save_checkpoint_atomically', is_full)
    with pytest.raises(TooManyUnreadableError, match='cannot save.*No space'):
        run(Data(4, {0: MISSING})).iterate(50)


def test_data_without_record_is_named(run, logged):
    training = run([1, 2, 3])
    training.hook.before_train(training.runner)
    assert logged == ['no limit on unreadable images: list does not record '
                      'them']


def test_joined_and_repeated_images_count_once(run):
    joined = torch.utils.data.ConcatDataset(
        [Data(40, {}), Data(60, {7: EMPTY})])
    training = run(joined, max_unreadable=.01)
    training.iterate(50)
    assert training.listed == ['7.jpg\tthe file is empty']
    joined.datasets[0].skip(3)
    with pytest.raises(TooManyUnreadableError, match='2 of 100 images'):
        training.iterate(50)


def test_small_images_do_not_count_towards_limit(run, logged):
    training = run(Data(10, {1: TOO_SMALL, 2: TOO_SMALL, 3: MISSING}),
                   max_unreadable=.1)
    training.end_epoch()
    assert '1 of 10 images (10.00%) could not be read' in logged[0]
    assert '2 of 10 images (20.00%) were too small' in logged[1]
    assert len(training.listed) == 3


def test_full_disk_does_not_stop_training(run, logged, monkeypatch):

    def is_full(*args):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(skipped_images_hook, 'open_to_append', is_full)
    run(Data(40, {3: MISSING}), max_unreadable=1).end_epoch()
    assert 'No space left' in logged[0] and '3.jpg' in logged[1]


def test_names_are_escaped_in_log_and_file(run, logged):
    data = Data(40, {3: MISSING})
    data.get_data_info = lambda index: dict(img_path='a\n\x1b[2J\tb\udc80')
    training = run(data, max_unreadable=1)
    training.end_epoch()
    escaped = r'a\n\x1b[2J\tb\udc80'
    assert training.listed == [f'{escaped}\tthe file is missing']
    assert f': {escaped}; all' in logged[0]


@pytest.mark.timeout(20)
@pytest.mark.parametrize('kind', ['link', 'pipe'])
def test_planted_link_or_pipe_is_not_written(run, logged, tmp_path, kind):
    path, target = tmp_path / 'skipped_images.txt', tmp_path / 'target'
    target.write_text('precious')
    path.symlink_to(target) if kind == 'link' else os.mkfifo(path)
    run(Data(40, {3: MISSING}), max_unreadable=1).end_epoch()
    assert target.read_text() == 'precious'
    assert 'cannot write' in logged[0] and '3.jpg' in logged[1]


def test_ranks_count_each_image_once(run, logged, monkeypatch):
    other_rank = Data(8, {1: MISSING, 2: EMPTY}).skipped

    def all_reduce(marks, op):
        assert op == 'max'
        if len(marks.shape):
            marks.copy_(torch.maximum(marks, other_rank))
        else:
            marks.fill_(1)

    monkeypatch.setattr(skipped_images_hook, 'all_reduce', all_reduce)
    dataset = Data(8, {2: EMPTY, 5: EMPTY})
    run(dataset, max_unreadable=1).end_epoch()
    assert '3 of 8 images' in logged[0]
    assert '1.jpg, 2.jpg, 5.jpg' in logged[0]
    assert dataset.skipped.count_nonzero() == 2  # ranks do not share


@pytest.mark.parametrize('option', [
    dict(max_unreadable=1.5), dict(max_unreadable=-1), dict(interval=0)])
def test_hook_refuses_invalid_options(option):
    with pytest.raises(ValueError, match=next(iter(option))):
        SkippedImagesHook(**option)
