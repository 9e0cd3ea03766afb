"""Measure the host's BYOL pipeline and JPEG decoding, seconds per image.

``speed.py`` runs this script in a process of its own, because the host's
ColorJitter needs NumPy 1: PYTHONPATH starts with a folder that contains NumPy
1. The input is a JSON list of image paths; the output is one JSON line.
"""
import json
import sys
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from mmengine.fileio import get
from speed_parts.timing import time_interleaved


def decode(path: str) -> np.ndarray:
    """Read and decode a JPEG as the host does."""
    return cv2.imdecode(np.frombuffer(get(path), np.uint8), cv2.IMREAD_COLOR)


def main() -> None:
    """Print the seconds per image and NumPy's version."""
    import mmpretrain
    import torch
    from mmengine.config import Config
    from mmpretrain.registry import TRANSFORMS
    from mmpretrain.utils import register_all_modules
    register_all_modules()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    paths = json.load(sys.stdin)
    configs = Path(mmpretrain.__file__).parent / '.mim/configs'
    cfg = Config.fromfile(configs / '_base_/datasets/imagenet_bs32_byol.py')
    pipeline = [TRANSFORMS.build(step) for step in cfg.train_pipeline]
    np.random.seed(0)

    def load(path: str) -> dict:
        results = dict(img_path=path)
        for transform in pipeline:
            results = transform(results)
        return results

    seconds = time_interleaved({
        'decode': [partial(decode, p) for p in paths],
        'byol': [partial(load, p) for p in paths]}, repeats=2)
    print(json.dumps(dict(seconds, numpy=np.__version__)))


if __name__ == '__main__':
    main()
