"""All methods share the boxes, and both places of the cut give equal views."""
import json

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope

from experiments.byol_comparison.data import make_data, pixel_cache
from experiments.byol_comparison.settings import Experiment, Run
from experiments.byol_comparison.training import (
    keep_images_in_memory,
    load_config,
)
from univip_mm.registry import DATASETS, FUNCTIONS, MODELS


@pytest.fixture(scope='module')
def experiment(tmp_path_factory):
    folder = tmp_path_factory.mktemp('views')
    experiment = Experiment(
        data_dir=str(folder / 'data'), num_train=6, num_val=2,
        work_dir=str(folder / 'runs'))
    make_data(experiment)
    return experiment


def samples_of(experiment, method, on_gpu=False, seed=1):
    cfg = load_config(experiment, Run(method, seed))
    if on_gpu:
        keep_images_in_memory(cfg, str(pixel_cache(experiment)), True)
    with DefaultScope.overwrite_default_scope('univip_mm'):
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
    dataset.set_epoch(seed, 0)
    return cfg, [dataset[i] for i in range(4)]


def test_methods_use_their_views(experiment):
    counts = {method: len(samples_of(experiment, method)[1][0]['inputs'])
              for method in ('byol', 'byol_overlap', 'univip')}
    assert counts == dict(byol=2, byol_overlap=2, univip=6)


def test_overlap_scenes_are_those_of_univip(experiment):
    _, ours = samples_of(experiment, 'byol_overlap')
    _, univip = samples_of(experiment, 'univip')
    _, byol = samples_of(experiment, 'byol')
    ours, univip, byol = (torch.stack([
        view for x in samples for view in x['inputs'][:2]])
        for samples in (ours, univip, byol))
    assert torch.equal(ours, univip)
    # The first crops are equal if the first attempt is accepted.
    assert not torch.equal(ours, byol)


def test_views_depend_on_the_seed(experiment):
    for method in ('byol', 'univip'):
        first, again, other = (samples_of(experiment, method, seed=seed)[1]
                               for seed in (1, 1, 2))
        assert torch.equal(first[0]['inputs'][0], again[0]['inputs'][0])
        assert not torch.equal(first[0]['inputs'][0], other[0]['inputs'][0])


@pytest.mark.parametrize('method', ['byol', 'byol_overlap', 'univip'])
def test_resident_images_give_the_views_of_opencv(experiment, method):
    cfg, of_opencv = samples_of(experiment, method)
    resident_cfg, boxes = samples_of(experiment, method, on_gpu=True)
    assert resident_cfg.model.graph == 'cuda_graph'
    collate = FUNCTIONS.get(resident_cfg.train_dataloader.collate_fn.type)
    batch = collate(boxes)
    table, sizes = batch['inputs']  # and no pixels
    number = 6 if method == 'univip' else 2
    assert table.shape == (4, number, 8) and sizes.shape == (4, number)
    resident, plain = (
        MODELS.build(x.model.data_preprocessor) for x in (resident_cfg, cfg))
    views = resident(batch)['inputs']
    for number, view in enumerate(views):
        wanted = plain(dict(inputs=[torch.stack(
            [x['inputs'][number] for x in of_opencv])]))['inputs'][0]
        # In grey levels; OpenCV rounds its weights.
        difference = (view - wanted).abs() * plain.std
        assert difference.max() < 1.01
        assert (difference > 0.5).float().mean() < 0.001


def test_find_image_names_a_missing_image(experiment, tmp_path):
    from experiments.byol_comparison.views import FindImage
    with pytest.raises(KeyError, match='has no image 99'):
        FindImage(str(pixel_cache(experiment))).transform(dict(img_id=99))


def test_unknown_scenes_are_rejected():
    from experiments.byol_comparison.views import MethodViews
    with pytest.raises(ValueError, match="scenes is 'overlapping', but must"):
        MethodViews(scenes='overlapping')


def test_photographs_are_scored_in_other_images(coco_folder, tmp_path):
    from experiments.byol_comparison.data import load_splits
    from experiments.byol_comparison.evaluate import leave_one_image_out
    content = json.loads((coco_folder / 'train.json').read_text())
    number = len(content['images'])
    content.update(
        categories=[dict(id=1, name='a'), dict(id=2, name='b')],
        annotations=[dict(id=2 * i + j, image_id=x['id'],
                          bbox=[9 * j, 0, 9, 9], category_id=1 + j)
                     for i, x in enumerate(content['images'])
                     for j in range(2)])
    path = tmp_path / 'all.json'
    path.write_text(json.dumps(content))
    experiment = Experiment(
        data_dir=str(tmp_path / 'data'), ann_file=str(path),
        img_prefix=str(coco_folder / 'images'))
    assert experiment.skip_detection
    make_data(experiment)
    split, = load_splits(experiment)
    assert split.image_of.tolist() == np.repeat(range(number), 2).tolist()
    # Features that tell the image apart and nothing else.
    by_image = torch.eye(number)[split.image_of]
    by_class = torch.eye(2)[split.classes]
    assert leave_one_image_out(by_class, split, k=3) == 100
    mixed = torch.cat([100 * by_image, by_class], 1)
    assert leave_one_image_out(mixed, split, k=1) == 100
    # The objects of image 0 look like the other class, so their neighbours
    # in other images are wrong; they themselves would be the nearest.
    swapped = torch.where(split.image_of == 0, 1 - split.classes,
                          split.classes)
    alike = torch.cat([torch.eye(2)[swapped], 0.1 * by_image], 1)
    assert leave_one_image_out(alike, split, k=3) == pytest.approx(
        100 * (number - 1) / number)
