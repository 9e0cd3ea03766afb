"""Pictures of proposal files: histograms, and images with their boxes."""
from collections.abc import Sequence
from typing import Optional

import numpy as np
from matplotlib.axes import Axes

from ..io.atomic import PathLike
from . import style

_MARGIN = 20


def draw_proposal_histograms(counts: np.ndarray, boxes: np.ndarray,
                             path: PathLike, title: str = '') -> None:
    """Write histograms of a proposal file as a PNG of 1800 x 520 pixels.

    The histograms are of boxes per image, of the side of a box (square root
    of its area), and of its aspect ratio (width / height).

    Args:
        counts (np.ndarray): Number of boxes of each image, (I,).
        boxes (np.ndarray): All boxes, (N, 4) xyxy in pixels; N may be 0.
        path (str or Path): File to write. Its folder is created.
        title (str): Title of the picture. Defaults to ''.
    """
    sides = (boxes[:, 2:] - boxes[:, :2]).astype(np.float64)
    figure = style.new_figure(1800, 520, dpi=100, layout='constrained')
    figure.suptitle(title, fontsize=15, weight='bold', color=style.INK)
    by_count, by_side, by_ratio = figure.subplots(1, 3)
    most = counts.max(initial=0)
    by_count.hist(counts, bins=np.arange(most + 2) - 0.5 if most < 100 else 60,
                  color=style.BLUE)
    style.finish_axes(by_count, 'boxes per image')
    by_count.set_ylabel('images', fontsize=13)
    by_side.hist(np.sqrt(sides.prod(axis=1)), bins=60, color=style.BLUE)
    style.finish_axes(by_side, 'square root of the area of a box, pixels')
    by_side.set_ylabel('boxes', fontsize=13)
    _draw_ratios(by_ratio, sides[:, 0] / sides[:, 1])
    style.save_figure(figure, path)


def _draw_ratios(axes: Axes, ratios: np.ndarray) -> None:
    largest = max(3.0, ratios.max(initial=1), (1 / ratios).max(initial=1))
    axes.hist(ratios, bins=np.geomspace(1 / largest, largest, 61),
              color=style.BLUE)
    style.finish_axes(axes, 'width / height of a box')
    axes.set_xscale('log')
    numbers = [n for n in (1, 2, 3, 4, 8) if n <= largest * 1.001]
    axes.set_xticks([1 / n for n in numbers[:0:-1]] + numbers,
                    [f'1/{n}' for n in numbers[:0:-1]] + numbers)
    axes.minorticks_off()


def draw_proposals(image: np.ndarray, boxes: np.ndarray,
                   annotated: Optional[np.ndarray] = None, title: str = '',
                   strongest: int = 8) -> np.ndarray:
    """Draw an image with its proposals and, if given, its annotated boxes.

    The first proposals are bold and numbered, the others thin and gray.
    Annotated boxes are dashed and green.

    Args:
        image (np.ndarray): (H, W, 3) uint8, RGB.
        boxes (np.ndarray): Proposals (N, 4), xyxy in pixels of the image.
        annotated (np.ndarray, optional): (M, 4), likewise. Defaults to None.
        title (str): Title of the picture. Defaults to ''.
        strongest (int): Number of bold proposals. Defaults to 8.

    Returns:
        np.ndarray: Picture of 660 pixels width, uint8, RGB.

    Raises:
        ValueError: The image is not uint8 RGB.
    """
    style.check_image(image, 'draw_proposals: the image')
    scale = style.PHOTO_SIZE / max(image.shape[:2])
    figure = style.new_figure(
        style.PHOTO_SIZE + 2 * _MARGIN,
        round(image.shape[0] * scale) + style.TITLE_HEIGHT + 10)
    style.pixel_axes(figure).text(
        _MARGIN, style.TITLE_HEIGHT / 2, title, fontsize=15, weight='bold',
        color=style.INK, va='center')
    axes, _ = style.photo_axes(figure, image, _MARGIN, style.TITLE_HEIGHT,
                               style.PHOTO_SIZE, style.PHOTO_SIZE)
    for box in boxes[strongest:]:
        style.draw_proposal(axes, box)
    for box in [] if annotated is None else annotated:
        style.draw_box(axes, box, style.OVERLAP_COLOR, 2.5,
                       linestyle=(0, (4, 2)), path_effects=style.halo(4, 0.6))
    for box in boxes[:strongest]:
        style.draw_instance(axes, box)
    style.number_boxes(axes, boxes[:strongest], scale)
    return style.render(figure)


def draw_image_grid(images: Sequence[np.ndarray], path: PathLike,
                    columns: int = 3) -> None:
    """Write images in rows and columns as a PNG.

    Args:
        images (Sequence[np.ndarray]): (height, width, 3) uint8, RGB, of one
            width.
        path (str or Path): File to write. Its folder is created.
        columns (int): Images per row. Defaults to 3.

    Raises:
        ValueError: There are no images.
    """
    style.check_rows(images, 'images', path)
    width = columns * images[0].shape[1]
    rows = []
    for start in range(0, len(images), columns):
        row = images[start:start + columns]
        height = max(image.shape[0] for image in row)
        row = [style.pad_image(image, height, image.shape[1]) for image in row]
        row = np.concatenate(row, axis=1)
        rows.append(style.pad_image(row, height, width))
    style.save_image(np.concatenate(rows), path)
