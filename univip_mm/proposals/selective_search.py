"""Selective search (Uijlings et al., IJCV 2013), OpenCV's implementation."""
import ctypes

import cv2
import numpy as np

from ..io.boxes import xywh_to_xyxy

METHODS = ('fast', 'quality')


def check_opencv() -> None:
    """Raise early where OpenCV comes without selective search.

    The test is for the function itself: where ``opencv-python`` was unpacked
    over ``opencv-contrib-python``, an empty ``cv2.ximgproc`` is left behind.

    Raises:
        ImportError: OpenCV has no selective search.
    """
    segmentation = getattr(
        getattr(cv2, 'ximgproc', None), 'segmentation', None)
    if not hasattr(segmentation, 'createSelectiveSearchSegmentation'):
        raise ImportError(
            f'OpenCV {cv2.__version__} has no selective search, which is in '
            "its contrib modules: 'pip install --force-reinstall --no-deps "
            "opencv-contrib-python-headless'")


def selective_search(image: np.ndarray,
                     method: str = 'fast',
                     seed: int = 0) -> np.ndarray:
    """Boxes that may hold an object, the likeliest first.

    Args:
        image (np.ndarray): (H, W, 3) uint8, BGR.
        method (str): 'fast' or 'quality'. Defaults to 'fast'.
        seed (int): The order of the boxes is partly random; a seed gives the
            same one. Defaults to 0.

    Returns:
        np.ndarray: (N, 4) int32, xyxy in pixels, x2 and y2 outside.

    Raises:
        ValueError: There is no such method.
    """
    if method not in METHODS:
        raise ValueError(f"there is no method '{method}' of selective "
                         f'search: choose one of {", ".join(METHODS)}')
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(image)
    if method == 'fast':
        search.switchToSelectiveSearchFast()
    else:
        search.switchToSelectiveSearchQuality()
    # OpenCV ranks the boxes with the C library's rand(), which its own
    # setRNGSeed() does not reach.
    ctypes.CDLL(None).srand(seed)
    return xywh_to_xyxy(search.process()).astype(np.int32)
