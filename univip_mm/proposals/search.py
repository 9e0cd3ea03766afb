"""Settings of a proposal search, and the search of one image."""
from dataclasses import dataclass
from typing import Optional

import cv2
import numpy as np

from ..io.atomic import PathLike
from ..io.boxes import ProposalRules, filter_boxes
from ..io.images import read_image
from ..version import __version__
from .selective_search import selective_search

NO_BOXES = np.zeros((0, 4), dtype=np.int32)


@dataclass(frozen=True)
class Search:
    """Proposal search with its settings; a call searches an image.

    Args:
        method (str): As in
            :func:`~univip_mm.proposals.selective_search.selective_search`.
            Defaults to 'fast'.
        rules (ProposalRules): The three rules.
        top_n (int, optional): Largest number of boxes per image. No limit by
            default.
        max_side (int, optional): Longer side, in pixels, of a reduced copy of
            the image to search; the boxes are scaled back. The image itself
            is searched by default.

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
        scale = min(1, (self.max_side or np.inf) / max(height, width))
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


def search_file(path: PathLike,
                search: Search) -> tuple[np.ndarray, Optional[str]]:
    """Search an image file, without raising an error for a bad image.

    Returns the boxes (N, 4), and the reason why there are none, or None.
    """
    try:
        image = read_image(path)
    except Exception as e:  # any error of a parser
        return NO_BOXES, _one_line(e)
    try:
        return search(image), None
    except (cv2.error, MemoryError) as e:
        return NO_BOXES, f'the search failed: {_one_line(e)}'


def _one_line(error: Exception) -> str:
    reason = getattr(error, 'strerror', None) or str(error)
    return ' '.join(reason.split())
