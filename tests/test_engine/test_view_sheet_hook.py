import cv2
import numpy as np
import pytest
from mmengine.config import Config
from tiny import MODELS, run_tool, watched, write_config

from univip_mm.engine.hooks import ViewSheetHook, view_sheet_hook
from univip_mm.registry import DATASETS
from univip_mm.visualization.training_views import augmented_views, open_views


def train(folder, name, *options):
    run_tool('train', write_config(folder), '--work-dir', folder / name,
             '--cfg-options', 'default_hooks.view_sheet.interval=50',
             *options)
    return folder / name


def sheets(work_dir):
    return {int(path.stem.split('_')[1]): cv2.imread(str(path))
            for path in work_dir.glob('*/vis_data/vis_image/*.png')}


@pytest.fixture
def seen(monkeypatch):
    """What the network got in each epoch: the views of each image, RGB."""
    seen = []
    loss = MODELS.get('UniVIP').loss

    def watch(self, inputs, data_samples=None, **kwargs):
        mean, std = self.data_preprocessor.mean, self.data_preprocessor.std
        views = [(x * std + mean).round().clamp(0, 255).byte()
                 .permute(0, 2, 3, 1).numpy() for x in inputs]
        for i, sample in enumerate(data_samples):
            seen.append((sample.img_id, [view[i] for view in views]))
        return loss(self, inputs, data_samples, **kwargs)

    monkeypatch.setattr(MODELS.get('UniVIP'), 'loss', watch)
    return seen


def test_views_are_pixel_for_pixel_what_the_network_got(
        coco_folder, seen, univip_scope):
    train(coco_folder, 'out')
    cfg = Config.fromfile(coco_folder / 'tiny.py')
    source = open_views(DATASETS.build(cfg.train_dataloader.dataset))
    preprocessor = MODELS.build(cfg.model.data_preprocessor)
    assert len(seen) == 16
    for epoch in (0, 1):
        source.dataset.set_epoch(0, epoch)
        samples = [source.dataset[i] for i in range(8)]
        drawn = augmented_views(samples, source.pack, preprocessor)
        for img_id, views in seen[8 * epoch:8 * (epoch + 1)]:
            ours = drawn[img_id // 10 - 1]
            assert len(ours) == len(views) == 6
            for view, other in zip(ours, views):
                # A batch of another size rounds otherwise, in the last bit.
                assert np.abs(view.astype(int) - other).max() <= 1


def test_sheets_are_of_the_epochs_asked_for_and_differ(coco_folder):
    work_dir = train(coco_folder, 'out',
                     'default_hooks.view_sheet.interval=1',
                     'default_hooks.view_sheet.num_images=2')
    found = sheets(work_dir)
    assert sorted(found) == [1, 2]
    assert found[1].shape == found[2].shape
    assert (found[1] != found[2]).any()


def test_the_first_epoch_is_drawn_and_then_one_in_interval(coco_folder):
    assert sorted(sheets(train(coco_folder, 'out'))) == [1]
    off = train(coco_folder, 'off', 'default_hooks.view_sheet.interval=0')
    assert sheets(off) == {}


def test_training_has_the_same_bits_with_and_without(coco_folder):
    with_sheets = train(coco_folder, 'with',
                        'default_hooks.view_sheet.interval=1')
    run_tool('train', write_config(coco_folder), '--work-dir',
             coco_folder / 'without')
    assert watched(with_sheets) == watched(coco_folder / 'without')
    assert len(sheets(with_sheets)) == 2


def test_a_picture_that_fails_is_a_warning_and_the_training_goes_on(
        coco_folder, logged, monkeypatch):
    def fails(self, runner):
        raise MemoryError('no room')
    monkeypatch.setattr(ViewSheetHook, 'draw', fails)
    work_dir = train(coco_folder, 'out', 'default_hooks.view_sheet.interval=1')
    assert len(watched(work_dir)) == 8 and sheets(work_dir) == {}
    log = next(work_dir.glob('*/*.log')).read_text()
    assert log.count('no more sheets of views: MemoryError: no room') == 1


def test_without_what_it_needs_it_says_so_once(coco_folder):
    work_dir = train(coco_folder, 'out',
                     'train_dataloader.sampler.type=DefaultSampler')
    assert sheets(work_dir) == {}
    log = next(work_dir.glob('*/*.log')).read_text()
    assert log.count('no sheets of views: they need sampler=') == 1


@pytest.mark.parametrize('options', [dict(interval=-1), dict(num_images=0)])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match='ViewSheetHook'):
        ViewSheetHook(**options)


def test_data_without_scenes_is_told(univip_scope):
    assert 'without OverlapSceneCrop' in view_sheet_hook._missing([])


def test_browse_dataset_shows_the_views_of_an_epoch(coco_folder, capsys):
    pictures = {}
    for epoch in (1, 2, 1):
        run_tool('browse_dataset', write_config(coco_folder), '-n', 2,
                 '--epoch', epoch, '-o', coco_folder / f'epoch{epoch}')
        picture = cv2.imread(
            str(coco_folder / f'epoch{epoch}' / 'scenes_001.png'))
        assert epoch not in pictures or (picture == pictures[epoch]).all()
        pictures[epoch] = picture
    assert (pictures[1] != pictures[2]).any()
    with pytest.raises(SystemExit):
        run_tool('browse_dataset', coco_folder / 'tiny.py', '--epoch', 0)
    assert 'the first is 1' in capsys.readouterr().err
