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


def grids(work_dir):
    return {int(path.stem.split('_')[1]): cv2.imread(str(path))
            for path in work_dir.glob('*/vis_data/vis_image/*.png')}


@pytest.fixture
def seen(monkeypatch):
    """Record the views of each image that the network got, RGB."""
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


def test_views_equal_network_input(coco_folder, seen, univip_scope):
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
                # Another batch size may change the last bit.
                assert np.abs(view.astype(int) - other).max() <= 1


def test_grids_differ_between_epochs(coco_folder):
    work_dir = train(coco_folder, 'out',
                     'default_hooks.view_sheet.interval=1',
                     'default_hooks.view_sheet.num_images=2')
    found = grids(work_dir)
    assert sorted(found) == [1, 2]
    assert found[1].shape == found[2].shape
    assert (found[1] != found[2]).any()


def test_interval_starts_at_first_epoch(coco_folder):
    assert sorted(grids(train(coco_folder, 'out'))) == [1]
    off = train(coco_folder, 'off', 'default_hooks.view_sheet.interval=0')
    assert grids(off) == {}


def test_hook_keeps_training_bit_identical(coco_folder):
    with_grids = train(coco_folder, 'with',
                        'default_hooks.view_sheet.interval=1')
    run_tool('train', write_config(coco_folder), '--work-dir',
             coco_folder / 'without')
    assert watched(with_grids) == watched(coco_folder / 'without')
    assert len(grids(with_grids)) == 2


def test_drawing_error_becomes_warning(coco_folder, logged, monkeypatch):
    def fails(self, runner):
        raise MemoryError('no room')
    monkeypatch.setattr(ViewSheetHook, 'draw', fails)
    work_dir = train(coco_folder, 'out', 'default_hooks.view_sheet.interval=1')
    assert len(watched(work_dir)) == 8 and grids(work_dir) == {}
    log = next(work_dir.glob('*/*.log')).read_text()
    assert log.count('no more grids of views: MemoryError: no room') == 1


def test_missing_sampler_is_logged_once(coco_folder):
    work_dir = train(coco_folder, 'out',
                     'train_dataloader.sampler.type=DefaultSampler')
    assert grids(work_dir) == {}
    log = next(work_dir.glob('*/*.log')).read_text()
    assert log.count('no grids of views: they need sampler=') == 1


@pytest.mark.parametrize('options', [dict(interval=-1), dict(num_images=0)])
def test_hook_refuses_invalid_options(options):
    with pytest.raises(ValueError, match='ViewSheetHook'):
        ViewSheetHook(**options)


def test_missing_names_scene_crop(univip_scope):
    assert 'without OverlapSceneCrop' in view_sheet_hook._missing([])


def test_browse_dataset_shows_views_of_epoch(coco_folder, capsys):
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
    assert '--epoch is 0: it must be at least 1' in capsys.readouterr().err
