"""Data of the experiment: scenes or photographs, and their proposals."""
import json
from pathlib import Path
from typing import Union

from .settings import Experiment

NUM_FITTED = 3000  # largest number of images that classifiers are fitted on


def make_data(experiment: Experiment) -> None:
    """Write the images, the proposals, and a proposal file without boxes.

    Complete files are not written again. Commands that start at the same time
    on the same folder wait for each other.

    Raises:
        ValueError: The folder has data with other settings.
        FileNotFoundError: ``ann_file`` does not exist.
    """
    from filelock import FileLock
    folder = Path(experiment.data_dir)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f'{folder}.lock'):
        if experiment.ann_file:
            link_photographs(experiment.ann_file, experiment.img_prefix,
                             folder)
        else:
            _make_scenes(folder, experiment.num_train, experiment.num_val)
        _make_proposals(folder)
        _cache_pixels(experiment)


def pixel_cache(experiment: Experiment) -> Path:
    """Return the path of the decoded training images."""
    return Path(experiment.data_dir, 'train.pixels')


def _cache_pixels(experiment: Experiment) -> None:
    from univip_mm.io.cache_writer import cache_pixels
    from univip_mm.io.coco_json import read_coco
    folder = Path(experiment.data_dir)
    cache_pixels(read_coco(folder / 'annotations/train.json')['images'],
                 folder / 'train', pixel_cache(experiment))


def _make_scenes(folder: Path, num_train: int, num_val: int) -> None:
    from univip_mm.demo import make_scenes
    from univip_mm.io.coco_json import read_coco
    ann_file = folder / 'annotations/train.json'
    if ann_file.is_file():
        number = len(read_coco(ann_file)['images'])
        if number != num_train:
            raise ValueError(
                f"'{folder}' has {number} images to train on, not "
                f'{num_train}: give another --data-dir, or delete it')
    make_scenes(folder, num_train, num_val, seed=1)


def _make_proposals(folder: Path) -> None:
    from univip_mm.io.boxes import ProposalRules
    from univip_mm.io.coco_json import read_coco
    from univip_mm.proposals import (
        ProposalFile,
        Search,
        generate_proposals,
        write_proposals,
    )
    images = read_coco(folder / 'annotations/train.json')['images']
    path = folder / 'proposals/train.npz'
    outcome = generate_proposals(
        images, folder / 'train', path,
        Search(rules=ProposalRules(min_size=32), max_side=128),
        source='train.json')
    if outcome.unreadable:
        print(f'{len(outcome.unreadable)} images cannot be read and have no '
              f'proposals, for example {next(iter(outcome.unreadable))}')
    write_proposals(
        folder / 'proposals/none.npz', {x['id']: [] for x in images},
        dict(method='none', rules=ProposalFile(path).meta['rules']),
        {x['id']: x['file_name'] for x in images})


def link_photographs(ann_file: Union[str, Path], img_prefix: Union[str, Path],
                     folder: Path) -> None:
    """Link the photographs of a COCO json into ``train``.

    Args:
        ann_file (str or Path): COCO json with objects.
        img_prefix (str or Path): Folder of the images.
        folder (Path): Folder to write ``annotations/`` and ``train/`` to.

    Raises:
        ValueError: The json has no annotations or no categories.
    """
    from univip_mm.io.atomic import atomic_write
    from univip_mm.io.coco_annotations import (
        read_annotations,
        read_categories,
    )
    from univip_mm.io.coco_json import image_path, read_coco
    content = read_coco(ann_file)
    names = read_categories(content, ann_file)
    objects = read_annotations(content, ann_file, names, boxes=True)
    if not objects:
        raise ValueError(f"'{ann_file}' has no 'annotations' with boxes, which"
                         ' the evaluation needs: give a COCO json with '
                         'objects')
    # Atomic, because a run may be reading the file.
    with atomic_write(folder / 'annotations/train.json', 'w') as file:
        json.dump(dict(
            images=content['images'], annotations=objects,
            categories=[dict(id=i, name=names[i]) for i in names]), file)
    for image in content['images']:
        link = folder / 'train' / image['file_name']
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(
                Path(image_path(img_prefix, image['file_name'])).resolve())


def load_splits(experiment: Experiment) -> list:
    """Read the training and the test split for the frozen features.

    Returns:
        list[Split]: At most ``NUM_FITTED`` images of each split. Photographs
        have no test split.
    """
    from .evaluate import load_split
    data, scale = Path(experiment.data_dir), experiment.scale
    return [
        load_split(data / f'annotations/{split}.json', data / split,
                   scale.image_size, scale.object_size, max_objects,
                   max_images=NUM_FITTED)
        for split, max_objects in (('train', 8000), ('val', 4000))
        if split == 'train' or not experiment.ann_file]


def load_detection_splits(experiment: Experiment) -> list[tuple]:
    """Read 500 images with boxes of the training and of the test split."""
    from .detection import load_boxes
    data = Path(experiment.data_dir)
    return [
        load_boxes(data / f'annotations/{split}.json', data / split,
                   experiment.scale.image_size, 500)
        for split in ('train', 'val')]
