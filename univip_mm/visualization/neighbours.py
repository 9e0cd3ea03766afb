"""Nearest neighbours of random objects or images in feature space."""
import argparse
from pathlib import Path
from typing import Optional

import numpy as np

from ..engine.checkpoint import latest_checkpoint
from ..io.atomic import PathLike
from ..io.work_dir_lock import is_in_use
from . import inspection
from .analysis import embed, nearest
from .features import NeighbourRow, draw_neighbours
from .report import NEIGHBOURS

# Of a report: a picture that takes seconds.
_NUM_IMAGES, _NUM_QUERIES, _TOP_K = 128, 5, 5


def write_neighbours(setup: inspection.Setup, path: PathLike, name: str,
                     number: int, what: str, queries: int, top_k: int,
                     branch: str = 'online') -> str:
    """Write the picture of :func:`draw_neighbours`; return a summary.

    Args:
        setup (Setup): Network in evaluation mode, and training data.
        path (str or Path): PNG to write.
        name (str): Name of the features, for the title.
        number (int): Objects or images to search, sampled at random.
        what (str): 'objects' or 'images'.
        queries (int): Rows of the picture, sampled at random.
        top_k (int): Neighbours per row.
        branch (str): 'online' or 'target'. Defaults to 'online'.

    Raises:
        ValueError: All objects are of one image, or an image cannot be read.
    """
    crops = inspection.pick_crops(setup, number, what)
    paths = [crop.img_path for crop in crops]
    if len(set(paths)) < 2:
        raise ValueError(f'all {what} are from one image, but neighbours '
                         'are searched in other images: raise --number or '
                         'give more data')
    features = embed(setup.model, [crop.view for crop in crops], branch)
    rows, num_same, num_named = [], 0, 0
    for query in np.random.permutation(len(crops))[:queries]:
        indices, cosines = nearest(features, paths, query, top_k)
        view, _, category = crops[query]
        names = [crops[i].category for i in indices]
        rows.append(NeighbourRow(view, category,
                                 [crops[i].view for i in indices], names,
                                 cosines))
        if category is not None:
            num_named += len(names)
            num_same += names.count(category)
    draw_neighbours(rows, path, f'Nearest of {len(crops)} {what} in {name}')
    summary = f'{len(rows)} queries among {len(crops)} {what}'
    if num_named:
        summary += (f'; {num_same} of {num_named} neighbours '
                    f'({num_same / num_named:.0%}) have the same category')
    return summary


def write_neighbours_of_run(
        out: PathLike, setup: Optional[inspection.Setup] = None) -> str:
    """Write ``neighbours.png`` into the folder of a training.

    The picture has whole images, which need no annotations.

    Args:
        out (str or Path): Folder of a training, as for
            :func:`~univip_mm.visualization.report.write_report`.
        setup (Setup, optional): Network in evaluation mode, and training
            data. By default, those of the latest checkpoint and of the config
            in the work dir, which is executed; on the CPU if a training uses
            the work dir.

    Returns:
        str: Summary.

    Raises:
        FileNotFoundError: There is no checkpoint, no config, or no data.
        ValueError: The checkpoint, the config or the data cannot be used.
    """
    out = Path(out)
    name = 'backbone features, after the training'
    if setup is None:
        setup, name = _load(out)
    return write_neighbours(setup, out / NEIGHBOURS, name, _NUM_IMAGES,
                            'images', _NUM_QUERIES, _TOP_K)


def _load(out: Path) -> tuple[inspection.Setup, str]:
    """Load the latest checkpoint; return its name for the title, too."""
    work_dir = out / 'checkpoints' if (out / 'checkpoints').is_dir() else out
    checkpoint, _ = latest_checkpoint(str(work_dir))
    configs = sorted(work_dir.glob('*/vis_data/config.py'))
    if checkpoint is None or not configs:
        raise FileNotFoundError(
            f"no checkpoint of a training in '{work_dir}': wait for the first "
            'one (default_hooks.checkpoint.interval)')
    args = argparse.Namespace(
        config=str(configs[-1]), checkpoint=checkpoint, seed=0,
        cfg_options=None, launcher='none', work_dir=None, local_rank=0)
    # A running training needs the memory of the GPU.
    device = 'cpu' if is_in_use(work_dir) else None
    return (inspection.load_setup(args, device),
            f'the backbone features of {Path(checkpoint).name}')
