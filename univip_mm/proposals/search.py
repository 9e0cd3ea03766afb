"""Settings of a proposal search, and the search of one image."""
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Optional

import cv2
import numpy as np

from ..io.atomic import PathLike
from ..io.boxes import ProposalRules, filter_boxes
from ..io.images import read_image
from ..version import __version__
from .selective_search import selective_search

NO_BOXES = np.zeros((0, 4), dtype=np.int32)
# The time of selective search grows faster than the number of pixels, and
# with the square of the longer side: OpenCV rotates the image by 45 degrees
# within a larger one. See the measurements in docs/proposals.md.
LARGE_IMAGE = 2_000_000  # pixels; a larger image is searched in a copy
COPY_OF_LARGE_IMAGE = 640 * 480  # pixels, as most images of COCO
LONGEST_SIDE = 3000  # pixels, of an image without a copy, and of a copy


class Found(NamedTuple):
    """Result of the search of an image.

    Attributes:
        boxes (np.ndarray): (N, 4) xyxy in whole pixels.
        problem (str, optional): Why the image has no result, or None.
        reduced (bool): The image is large, so a copy was searched.
    """
    boxes: np.ndarray
    problem: Optional[str] = None
    reduced: bool = False


@dataclass(frozen=True)
class Search:
    """Proposal search with its settings; a call searches an image.

    Args:
        method (str): As in
            :func:`~univip_mm.proposals.selective_search.selective_search`.
            Defaults to 'fast'.
        rules (ProposalRules): The three rules. They apply to the pixels of
            the image, not of a reduced copy.
        top_n (int, optional): Largest number of boxes per image. No limit by
            default.
        max_side (int, optional): Longer side, in pixels, of a reduced copy of
            the image to search; the boxes are scaled back. By default, images
            of more than 2 megapixels, or with a side above 3000 pixels, are
            searched in a copy of at most 0.3 megapixels (COCO's 640 x 480)
            and 3000 pixels per side, and other images themselves.

    Raises:
        ValueError: ``top_n`` or ``max_side`` is below 1.
    """
    method: str = 'fast'
    rules: ProposalRules = ProposalRules()
    top_n: Optional[int] = None
    max_side: Optional[int] = None

    def __post_init__(self) -> None:
        for name in ('top_n', 'max_side'):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f'{name} is {value}, but must be at least 1')

    def reduces(self, width: int, height: int) -> bool:
        """Return True if the image is large, so that a copy is searched."""
        return (self.max_side is None
                and min(width, height) >= self.rules.min_size
                and (width * height > LARGE_IMAGE
                     or max(width, height) > LONGEST_SIDE))

    def count_large(self, images: Iterable[dict]) -> int:
        """Count the large images of a COCO json, of those with a size."""
        return sum(self.reduces(x['width'], x['height'])
                   for x in images if 'width' in x)

    def _scale(self, width: int, height: int) -> float:
        """Return the scale of the copy to search, at most 1."""
        if self.max_side is not None:
            return min(1, self.max_side / max(width, height))
        if not self.reduces(width, height):
            return 1
        # Not only the longer side: a panorama would lose its height.
        return min(1, (COPY_OF_LARGE_IMAGE / (width * height))**0.5,
                   LONGEST_SIDE / max(width, height))

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Search an image (H, W, 3) uint8, BGR.

        Returns:
            np.ndarray: The boxes (N, 4) int32, xyxy, in proposal order.
        """
        height, width = image.shape[:2]
        if min(height, width) < self.rules.min_size:
            # No box can obey the rules, and OpenCV needs minutes for
            # 30000 x 2 pixels.
            return NO_BOXES
        scale = self._scale(width, height)
        if scale < 1:
            size = max(1, round(width * scale)), max(1, round(height * scale))
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        boxes = selective_search(image, self.method)
        if scale < 1:
            ratio = np.array([width, height]) / size
            boxes = np.round(boxes * np.tile(ratio, 2)).astype(np.int32)
        return filter_boxes(boxes, self.rules, self.top_n)

    def describe(self) -> dict:
        """Return the settings and versions for the proposal file."""
        return dict(
            method=f'selective search, {self.method}', max_side=self.max_side,
            rules=self.rules.as_dict(), top_n=self.top_n,
            versions=dict(univip_mm=__version__, opencv=cv2.__version__))


def search_file(path: PathLike, search: Search) -> Found:
    """Search an image file, without raising an error for a bad image."""
    try:
        image = read_image(path)
    except Exception as e:  # any error of a parser
        return Found(NO_BOXES, _one_line(e))
    try:
        height, width = image.shape[:2]
        return Found(search(image), None, search.reduces(width, height))
    except (cv2.error, MemoryError) as e:
        return Found(NO_BOXES, f'the search failed: {_one_line(e)}')


def _one_line(error: Exception) -> str:
    reason = getattr(error, 'strerror', None) or str(error)
    return ' '.join(reason.split())
