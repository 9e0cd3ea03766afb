"""Selective search (Uijlings et al., IJCV 2013), OpenCV's implementation."""
import ctypes

import cv2
import numpy as np

from ..io.boxes import xywh_to_xyxy

METHODS = ('fast', 'quality')


def check_opencv() -> None:
    """Raise ImportError if OpenCV has no selective search."""
    # Check the function, not the module: if pip installs opencv-python over
    # opencv-contrib-python, an empty cv2.ximgproc remains.
    segmentation = getattr(
        getattr(cv2, 'ximgproc', None), 'segmentation', None)
    if not hasattr(segmentation, 'createSelectiveSearchSegmentation'):
        raise ImportError(
            f'OpenCV {cv2.__version__} has no selective search, which is part '
            "of the contrib modules: 'pip install --force-reinstall --no-deps "
            "opencv-contrib-python-headless'")


def selective_search(image: np.ndarray, method: str = 'fast',
                     seed: int = 0) -> np.ndarray:
    """Propose boxes that may contain an object.

    Args:
        image (np.ndarray): (H, W, 3) uint8, BGR.
        method (str): 'fast' or 'quality'. Defaults to 'fast'.
        seed (int): Seed of the order of the boxes, which is partly random.
            Defaults to 0.

    Returns:
        np.ndarray: The boxes (N, 4) int32, the most likely first: xyxy in
        pixels, x2 and y2 outside.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method '{method}' of selective search: "
                         f'choose one of {", ".join(METHODS)}')
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(image)
    if method == 'fast':
        search.switchToSelectiveSearchFast()
    else:
        search.switchToSelectiveSearchQuality()
    # OpenCV ranks the boxes with rand() of the C library, which OpenCV's
    # setRNGSeed() does not seed.
    ctypes.CDLL(None).srand(seed)
    return xywh_to_xyxy(search.process()).astype(np.int32)
