"""Seconds an image of the host's BYOL pipeline, and of decoding alone.

A process of its own, since the host's ColorJitter needs NumPy 1: the folder
of one goes before all others in PYTHONPATH. Takes a JSON list of image paths
and prints a JSON line.
"""
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Callable, Optional

import cv2
import numpy as np
from mmengine.fileio import get


def decode(data: bytes) -> np.ndarray:
    """As the host decodes a JPEG."""
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def take_turns(functions: dict[str, Sequence[Callable]], turns: int,
               wait: Optional[Callable] = None) -> dict:
    """Seconds a call of each, with the others' calls between its own.

    Args:
        functions (dict): For each name, its calls, as many as the others
            have.
        turns (int): How often all calls are made; of a call's times the
            shortest counts. One turn more goes before.
        wait (Callable, optional): What waits for the device. Defaults to
            None.

    Returns:
        dict: The mean over the calls.
    """
    times = {name: [] for name in functions}
    for turn in range(turns + 1):
        for calls in zip(*functions.values()):
            for name, call in zip(functions, calls):
                if wait:
                    wait()
                start = time.perf_counter()
                call()
                if wait:
                    wait()
                if turn:
                    times[name].append(time.perf_counter() - start)
    return {name: float(np.reshape(x, (turns, -1)).min(axis=0).mean())
            for name, x in times.items()}


def main() -> None:
    import mmpretrain
    import torch
    from mmengine.config import Config
    from mmpretrain.registry import TRANSFORMS
    from mmpretrain.utils import register_all_modules
    register_all_modules()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    paths = json.loads(Path(sys.argv[1]).read_text())
    cfg = Config.fromfile(
        Path(mmpretrain.__file__).parent /
        '.mim/configs/_base_/datasets/imagenet_bs32_byol.py')
    pipeline = [TRANSFORMS.build(step) for step in cfg.train_pipeline]
    np.random.seed(0)

    def run(path: str) -> dict:
        results = dict(img_path=path)
        for step in pipeline:
            results = step(results)
        return results

    seconds = take_turns({
        'decode': [lambda p=p: decode(get(p)) for p in paths],
        'byol': [lambda p=p: run(p) for p in paths]}, turns=2)
    print(json.dumps(dict(seconds, numpy=np.__version__)))


if __name__ == '__main__':
    main()
