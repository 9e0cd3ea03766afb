"""Pictures of proposal files: histograms, and images with their boxes."""
from collections.abc import Sequence
from typing import Optional

import numpy as np

from ..io.atomic import PathLike
from . import style

_MARGIN = 20
_STRONGEST = 8  # proposals that are bold and numbered
_COLUMNS = 3


def draw_proposal_histograms(counts: np.ndarray, boxes: np.ndarray,
                             path: PathLike, title: str = '') -> None:
    """Write histograms of a proposal file as a PNG of 1800 x 520 pixels.

    The histograms are of boxes per image, of the side of a box (square root
    of its area), and of its aspect ratio (width / height).

    Args:
        counts (np.ndarray): Number of boxes of each image, (I,).
        boxes (np.ndarray): All boxes, (N, 4) xyxy in pixels; N may be 0.
        path (str or Path): File to write.
        title (str): Title of the picture. Defaults to ''.
    """
    sides = (boxes[:, 2:] - boxes[:, :2]).astype(np.float64)
    figure = style.new_figure(1800, 520, dpi=100, layout='constrained')
    figure.suptitle(style.plain(title), fontsize=15, weight='bold',
                    color=style.INK)
    by_count, by_side, by_ratio = figure.subplots(1, 3)
    most = counts.max(initial=0)
    by_count.hist(counts, bins=np.arange(most + 2) - 0.5 if most < 100 else 60,
                  color=style.BLUE)
    style.finish_axes(by_count, 'boxes per image')
    by_count.set_ylabel('images', fontsize=13)
    by_side.hist(np.sqrt(sides.prod(axis=1)), bins=60, color=style.BLUE)
    style.finish_axes(by_side, 'square root of the area of a box, pixels')
    by_side.set_ylabel('boxes', fontsize=13)
    ratios = sides[:, 0] / sides[:, 1]
    largest = max(3.0, ratios.max(initial=1), (1 / ratios).max(initial=1))
    by_ratio.hist(ratios, bins=np.geomspace(1 / largest, largest, 61),
                  color=style.BLUE)
    style.finish_axes(by_ratio, 'width / height of a box')
    by_ratio.set_xscale('log')
    numbers = [n for n in (1, 2, 3, 4, 8) if n <= largest * 1.001]
    by_ratio.set_xticks([1 / n for n in numbers[:0:-1]] + numbers,
                        [f'1/{n}' for n in numbers[:0:-1]] + numbers)
    by_ratio.minorticks_off()
    style.save_figure(figure, path)


def draw_proposals(image: np.ndarray, boxes: np.ndarray,
                   annotated: Optional[np.ndarray] = None,
                   title: str = '') -> np.ndarray:
    """Draw an image with its proposals and, if given, its annotated boxes.

    The first proposals are bold and numbered, the others thin and gray.
    Annotated boxes are dashed and green.

    Args:
        image (np.ndarray): (H, W, 3) uint8, RGB.
        boxes (np.ndarray): Proposals (N, 4), xyxy in pixels of the image.
        annotated (np.ndarray, optional): (M, 4), xyxy. Defaults to None.
        title (str): Title of the picture. Defaults to ''.

    Returns:
        np.ndarray: Picture of 660 pixels width, uint8, RGB.
    """
    style.check_image(image, 'draw_proposals: the image')
    scale = style.PHOTO_SIZE / max(image.shape[:2])
    height = round(image.shape[0] * scale) + style.TITLE_HEIGHT + 10
    figure = style.new_figure(style.PHOTO_SIZE + 2 * _MARGIN, height)
    style.pixel_axes(figure).text(
        _MARGIN, style.TITLE_HEIGHT / 2, style.plain(title), fontsize=15,
        weight='bold', color=style.INK, va='center')
    axes, _ = style.photo_axes(figure, image, _MARGIN, style.TITLE_HEIGHT,
                               style.PHOTO_SIZE, style.PHOTO_SIZE)
    for box in boxes[_STRONGEST:]:
        style.draw_proposal(axes, box)
    for box in [] if annotated is None else annotated:
        style.draw_box(axes, box, style.OVERLAP_COLOR, 2.5,
                       linestyle=(0, (4, 2)), path_effects=style.halo(4, 0.6))
    style.draw_instances(axes, boxes[:_STRONGEST], scale)
    return style.render(figure)


def draw_image_grid(images: Sequence[np.ndarray], path: PathLike) -> None:
    """Write images (height, width, 3) uint8, RGB, of one width as a PNG."""
    style.check_rows(images, 'images', path)
    width = images[0].shape[1]
    rows = []
    for start in range(0, len(images), _COLUMNS):
        row = images[start:start + _COLUMNS]
        height = max(map(len, row))
        row = np.hstack([style.pad_image(x, height, width) for x in row])
        rows.append(style.pad_image(row, height, _COLUMNS * width))
    style.save_image(np.concatenate(rows), path)
