"""Writer of the demo's data set: JPEG images and COCO annotations."""
import itertools
import json
import os
import shutil
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, Optional, Union

import cv2
import numpy as np

from ..io.files import read_json
from ..utils.parallel import map_unordered, number_of_workers
from ..utils.progress import track
from .compose import SceneObject, check_size, make_scene
from .objects import CLASSES

# Increase the version when the drawings change: data of another version is
# then made again.
VERSION = 2
SPLITS = ('train', 'val')
FOLDERS = (*SPLITS, 'annotations')


def make_scenes(out_dir: Union[str, os.PathLike], num_train: int = 2000,
                num_val: int = 400, seed: int = 0, size=(320, 240),
                workers: Optional[int] = None) -> dict[str, Any]:
    """Write a data set of scenes in the COCO format.

    The files are ``train/000001.jpg`` …, ``val/000001.jpg`` …,
    ``annotations/train.json`` and ``annotations/val.json``. Boxes, areas and
    polygons describe the visible part of each object.

    An image depends only on the seed, its split and its number. A data set of
    the same arguments is kept. Any other data set of this function is
    replaced after the new one is complete, so an interrupted call can be
    repeated.

    Args:
        out_dir (str or PathLike): Folder of the data set.
        num_train (int): Training images. Defaults to 2000.
        num_val (int): Validation images. Defaults to 400.
        seed (int): Non-negative. Defaults to 0.
        size (tuple): Width and height, pixels. Defaults to (320, 240).
        workers (int, optional): Processes. Defaults to None, one per core.

    Returns:
        dict: ``made`` (bool), False if the data set existed; ``images``,
        ``objects`` (int); ``per_class`` (dict), objects of each class; and
        ``seconds`` (float).

    Raises:
        ValueError: An argument is out of range, or ``out_dir`` contains
            other data.
    """
    start = time.time()
    workers = number_of_workers(workers)
    for name, value, least in (('num_train', num_train, 1),
                               ('num_val', num_val, 1), ('seed', seed, 0)):
        if value < least:
            raise ValueError(f'{name} is {value}, but must be at least '
                             f'{least}')
    parameters = dict(version=VERSION, seed=seed, size=list(check_size(size)),
                      num_train=num_train, num_val=num_val)
    out_dir = Path(out_dir)
    contents = _read_annotations(out_dir)
    made = not _is_complete(out_dir, contents, parameters)
    if made:
        contents = _replace(out_dir, contents, parameters, workers)
    annotations = [annotation for content in contents.values()
                   for annotation in content['annotations']]
    counts = Counter(x['category_id'] for x in annotations)
    return dict(
        made=made, images=num_train + num_val, objects=len(annotations),
        per_class={name: counts[i] for i, name in enumerate(CLASSES, 1)},
        seconds=time.time() - start)


def _read_annotations(out_dir: Path) -> dict:
    """Return the content of each split's JSON written by this module."""
    contents = {}
    for split in SPLITS:
        path = out_dir / 'annotations' / f'{split}.json'
        try:
            content = read_json(path)
            if 'parameters' in content['info']:
                contents[split] = content
        except (OSError, ValueError, KeyError, TypeError):
            pass  # missing, damaged, or written by another program
    return contents


def _is_complete(out_dir: Path, contents: dict, parameters: dict) -> bool:
    """Return True if both splits exist and have these parameters."""
    try:
        return len(contents) == len(SPLITS) and all(
            content['info']['parameters'] == parameters
            and all((out_dir / split / image['file_name']).is_file()
                    for image in content['images'])
            and all('category_id' in x for x in content['annotations'])
            for split, content in contents.items())
    except (KeyError, TypeError):
        return False  # damaged


def _replace(out_dir: Path, contents: dict, parameters: dict, workers) -> dict:
    """Write a data set to a temporary folder, then replace the old one."""
    # An interrupted call leaves the folder `.part`, which marks the data of
    # `out_dir` as made by this module.
    part = out_dir / '.part'
    folders = [out_dir / name for name in FOLDERS]
    exists = any(folder.exists() for folder in folders)
    if part.is_symlink():
        raise ValueError(f"'{part}' is a link, not a folder of this tool: "
                         'remove the link')
    names = {x.name for x in part.iterdir()} if part.is_dir() else set()
    if names - set(FOLDERS) or exists and not contents and not names:
        raise ValueError(f"'{out_dir}' contains data that was not made by "
                         'this tool: give another folder, or move the data')
    shutil.rmtree(part, ignore_errors=True)
    contents = _write_splits(part, parameters, workers)
    # The annotations are removed first and moved last, because a data set
    # without annotations never counts as complete.
    for folder in reversed(folders):
        shutil.rmtree(folder, ignore_errors=True)
    for folder in folders:
        os.replace(part / folder.name, folder)
    part.rmdir()
    return contents


def _write_splits(folder: Path, parameters: dict, workers: int) -> dict:
    """Write all images and annotation files, and return the annotations."""
    for name in FOLDERS:
        (folder / name).mkdir(parents=True)
    tasks = [(split, index) for split in SPLITS
             for index in range(parameters[f'num_{split}'])]
    width, height = parameters['size']
    work = partial(write_scene, folder, parameters['seed'], (width, height))
    results = track(map_unordered(work, tasks, workers), len(tasks))
    info = dict(description='Scenes drawn by univip_mm', parameters=parameters)
    categories = [dict(id=i, name=name, supercategory='object')
                  for i, name in enumerate(CLASSES, 1)]
    contents = {split: dict(info=info, licenses=[], images=[], annotations=[],
                            categories=categories) for split in SPLITS}
    annotation_ids = itertools.count(1)
    for number, (file_name, annotations) in sorted(results):
        content = contents[tasks[number][0]]
        content['images'].append(dict(id=number + 1, file_name=file_name,
                                      width=width, height=height))
        content['annotations'] += [
            dict(id=next(annotation_ids), image_id=number + 1, **annotation)
            for annotation in annotations]
    for split, content in contents.items():
        Path(folder, 'annotations', f'{split}.json').write_text(
            json.dumps(content))
    return contents


def write_scene(folder: Path, seed: int, size: tuple, task: tuple) -> tuple:
    """Write one image; return its name, and its annotations without ids.

    ``task`` is the split and the index of the image, from 0.
    """
    split, index = task
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    image, objects = make_scene(rng, size)
    path = folder / split / f'{index + 1:06d}.jpg'
    quality = int(rng.integers(85, 96))
    if not cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, quality]):
        raise OSError(f"cannot write '{path}'")
    return path.name, [annotate(x) for x in objects]


def annotate(scene_object: SceneObject) -> dict[str, Any]:
    """Return the COCO annotation of an object, without ids."""
    x1, y1, x2, y2 = scene_object.bbox.tolist()
    # OpenCV's contours connect pixel centers. On a mask of three times the
    # size, they are within a sixth of an original pixel of the true edges.
    mask = scene_object.mask[y1:y2, x1:x2]
    large = np.kron(mask, np.ones((3, 3), np.uint8))
    contours, _ = cv2.findContours(large, cv2.RETR_EXTERNAL,
                                   cv2.CHAIN_APPROX_SIMPLE)
    contours = [cv2.approxPolyDP(c, 1, True)[:, 0] for c in contours]
    return dict(
        category_id=list(CLASSES).index(scene_object.name) + 1,
        bbox=[x1, y1, x2 - x1, y2 - y1], area=int(mask.sum()), iscrowd=0,
        segmentation=[((c + 0.5) / 3 + (x1, y1)).round(2).ravel().tolist()
                      for c in contours if len(c) > 2])
