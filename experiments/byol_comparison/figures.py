"""Figures and tables of the networks and the instances."""
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Union

import numpy as np
import torch
from matplotlib.figure import Figure
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope

from univip_mm.io.boxes import iou, xywh_to_xyxy
from univip_mm.io.coco_json import read_coco
from univip_mm.models.l2_normalize import l2_normalize
from univip_mm.registry import DATASETS
from univip_mm.visualization.training_views import open_views

from .data import load_splits
from .evaluate import (
    Split,
    effective_rank,
    estimate_bn_statistics,
    pooled_features,
)
from .report import markdown_table, mean_and_spread, sort_labels
from .settings import MEASURES, METHODS, Experiment, Run
from .training import build_model, load_config, load_network

NUM_NEIGHBOURS = 5
GREEN, RED = (0, 160, 0), (200, 0, 0)


def plot_results(results: dict, path: Union[str, Path]) -> None:
    """Plot the scores of each seed, and the scene-scene loss over epochs."""
    labels = [x for x in sort_labels(results) if x != 'supervised']
    figure = Figure(figsize=(17, 4.6), layout='constrained')
    *panels, curve_panel = figure.subplots(
        1, len(MEASURES) + 1, width_ratios=[1] * len(MEASURES) + [1.4])
    for panel, (key, title) in zip(panels, MEASURES.items()):
        for y, label in enumerate(labels):
            values = [run[key] for run in results[label].values()
                      if key in run]
            panel.plot(values, [y] * len(values), 'o', color='C0', alpha=0.6)
            if values:
                panel.plot(np.mean(values), y, '|', color='C1', ms=22, mew=3)
        panel.set_title(f'{title}, percent')
        panel.set_yticks(range(len(labels)),
                         [METHODS.get(x, x) for x in labels])
        panel.invert_yaxis()
        panel.grid(alpha=0.3)
        if panel is not panels[0]:
            panel.set_yticklabels([])
    _plot_curves(curve_panel, results, labels)
    _save(figure, path)


def _plot_curves(panel, results: dict, labels: Sequence[str]) -> None:
    for label in labels:
        curves = [scene_loss(run) for run in results[label].values()
                  if run['curve']]
        if curves:
            length = min(map(len, curves))
            mean = np.mean([curve[:length] for curve in curves], axis=0)
            panel.plot(range(1, length + 1), mean,
                       label=METHODS.get(label, label))
    panel.set_title('scene-scene loss over the epochs')
    if panel.lines:
        panel.legend(fontsize='small')
    panel.grid(alpha=0.3)


def scene_loss(run: dict) -> list[float]:
    """Return the scene-scene loss of each epoch, in [-2, 2].

    The loss of the host's BYOL is twice that value.
    """
    return [x['loss_scene'] if 'loss_scene' in x else x['loss'] / 2
            for x in run['curve']]


def plot_neighbours(experiment: Experiment, runs: Sequence[Run],
                    path: Union[str, Path]) -> None:
    """Plot test objects and their nearest training objects.

    Rows are objects, one of each class, at most eight. Columns are runs.

    Raises:
        FileNotFoundError: No run has a network.
    """
    runs = trained_runs(experiment, runs)
    train, val = load_splits(experiment)
    queries = [int((val.classes == c).nonzero()[0])
               for c in val.classes.unique().tolist()][:8]
    figure = Figure(figsize=(1.0 + 3.6 * len(runs), 0.85 * len(queries) + 0.4),
                    layout='constrained')
    panels = figure.subplots(
        len(queries), 1 + len(runs), squeeze=False,
        width_ratios=[1] + [NUM_NEIGHBOURS] * len(runs))
    for row, query in enumerate(queries):
        panels[row, 0].imshow(val.objects[query].permute(1, 2, 0))
    for column, run in enumerate(runs, 1):
        strips = _neighbour_strips(experiment, run, train, val, queries)
        for row, strip in enumerate(strips):
            panels[row, column].imshow(strip)
        panels[0, column].set_title(METHODS[run.method], fontsize='small')
    for panel in panels.flat:
        panel.set_axis_off()
    _save(figure, path)


def _neighbour_strips(experiment: Experiment, run: Run, train: Split,
                      val: Split, queries: list[int]) -> list[np.ndarray]:
    """Return for each query its neighbours, framed, in one image."""
    backbone, preprocessor = load_network(experiment, run)
    features, query_features = (
        l2_normalize(pooled_features(backbone, objects, preprocessor))
        for objects in (train.objects, val.objects[queries]))
    nearest = (query_features @ features.T).topk(NUM_NEIGHBOURS).indices
    strips = []
    for query, indices in zip(queries, nearest):
        correct = train.classes[indices] == val.classes[query]
        strips.append(np.concatenate([
            add_frame(image, GREEN if same else RED)
            for image, same in zip(train.objects[indices], correct)], axis=1))
    return strips


def add_frame(image: torch.Tensor, color: tuple[int, int, int]) -> np.ndarray:
    """Return an image (3, S, S) with a frame of 4 pixels, (S+8, S+8, 3)."""
    side = image.shape[-1] + 8
    canvas = np.full((side, side, 3), color, np.uint8)
    canvas[4:-4, 4:-4] = image.permute(1, 2, 0)
    return canvas


def _save(figure: Figure, path: Union[str, Path]) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)


def trained_runs(experiment: Experiment, runs: Sequence[Run]) -> list[Run]:
    """Return the runs whose network exists.

    Raises:
        FileNotFoundError: There is none.
    """
    found = [x for x in runs if experiment.backbone_path(x).is_file()]
    if not found:
        wanted = '; '.join(map(str, runs))
        raise FileNotFoundError(
            f"'{experiment.work_dir}' has no network of these runs: {wanted}. "
            'Train them first, or give --methods, --seeds and --name of '
            'trained ones')
    return found


def rank_table(experiment: Experiment, runs: Sequence[Run]) -> str:
    """Return the effective rank of each stage's maps of 128 test images.

    Raises:
        FileNotFoundError: No run has a network.
    """
    runs = trained_runs(experiment, runs)
    _, val = load_splits(experiment)
    images = val.images[:128]
    rows = []
    for run in runs:
        backbone, preprocessor = load_network(experiment, run)
        backbone.out_indices = (0, 1, 2, 3)
        estimate_bn_statistics(backbone, images, preprocessor)
        with torch.no_grad():
            maps = backbone(
                (images.float() - preprocessor.mean) / preprocessor.std)
        rows.append([METHODS[run.method], run.seed,
                     *(f'{effective_rank(x):.1f}' for x in maps)])
    head = [f'stage {i}, of {x.shape[1]}' for i, x in enumerate(maps, 1)]
    return markdown_table(['method', 'seed', *head], rows)


def untrained_table(experiment: Experiment, seeds: Sequence[int]) -> str:
    """Return effective ranks of pooled features of untrained backbones.

    The features are those of windows of 64 x 64 pixels in the middle of at
    most 768 training images, with BN statistics of the batch, for filters of
    any sum and with the sum zero. The first direction is the one with the
    largest variance.
    """
    train = load_splits(experiment)[0].images[:768]
    top, left = ((size - 64) // 2 for size in train.shape[2:])
    windows = train[:, :, top:top + 64, left:left + 64]
    rows = []
    for zero_sum in (False, True):
        ranks, shares = [], []
        for seed in seeds:
            cfg = load_config(experiment, Run(
                'byol', seed, options=(f'start.zero_sum={zero_sum}', )))
            with _quiet():
                model = build_model(cfg)
            model.backbone.train()
            features = pooled_features(
                model.backbone, windows, model.data_preprocessor)
            ranks.append(effective_rank(features[:, :, None, None]))
            values = torch.linalg.svdvals(features - features.mean(0)) ** 2
            shares.append(float(100 * values[0] / values.sum()))
        rows.append(['zero' if zero_sum else 'any', len(seeds),
                     mean_and_spread(ranks, 1), mean_and_spread(shares, 0)])
    return markdown_table(
        ['sum of a filter', 'seeds', 'effective rank, untrained',
         'variance in the first direction, %'], rows)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide MMEngine's log of the initialization of every weight."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('WARNING')
    try:
        yield
    finally:
        logger.setLevel(level)


def instance_table(experiment: Experiment, seed: int,
                   options: Sequence[str] = ()) -> str:
    """Return the contents of the instances of a first epoch.

    They are the share of boxes with an IoU of at least 0.5 with an object, and
    the share of background: boxes with less than a quarter of their area in
    objects.
    """
    content = read_coco(Path(experiment.data_dir, 'annotations/train.json'))
    objects = defaultdict(list)
    for annotation in content['annotations']:
        objects[annotation['image_id']].append(annotation['bbox'])
    rows = []
    for method in ('univip', 'univip_random_boxes'):
        cfg = load_config(experiment, Run(method, seed, options=options))
        with DefaultScope.overwrite_default_scope('univip_mm'):
            dataset = open_views(
                DATASETS.build(cfg.train_dataloader.dataset)).dataset
        dataset.set_epoch(seed, 0)
        overlaps, shares = [], []
        for i in range(len(dataset)):
            sample = dataset[i]
            boxes = sample['instance_boxes']
            truth = xywh_to_xyxy(objects[sample['img_id']])
            overlaps += iou(boxes, truth).max(axis=1).tolist()
            shares += [covered_share(box, truth) for box in boxes]
        on_object = np.mean(np.array(overlaps) >= 0.5)
        background = np.mean(np.array(shares) < 0.25)
        rows.append([METHODS[method], f'{on_object:.0%}',
                     f'{background:.0%}'])
    return markdown_table(
        ['instances', 'IoU >= 0.5 with an object', 'background'], rows)


def covered_share(box: np.ndarray, others: np.ndarray) -> float:
    """Compute the share of a box (4,) that boxes (N, 4) cover, xyxy pixels."""
    x1, y1, x2, y2 = map(int, box)
    inside = np.zeros((y2 - y1, x2 - x1), bool)
    for a1, b1, a2, b2 in np.round(others).astype(int).tolist():
        inside[max(b1 - y1, 0):max(b2 - y1, 0),
               max(a1 - x1, 0):max(a2 - x1, 0)] = True
    return float(inside.mean())
