import json
import logging
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from PIL import Image

from univip_mm.boxes import ProposalRules, filter_boxes
from univip_mm.proposals import write_proposals

# One thread: small tensors, and results that do not depend on the machine.
torch.set_num_threads(1)

hypothesis.settings.register_profile(
    'univip', deadline=None, derandomize=True, max_examples=100)
hypothesis.settings.load_profile('univip')


@pytest.fixture
def univip_scope():
    """The default scope of a Runner with one of our configs."""
    with DefaultScope.overwrite_default_scope('univip_mm'):
        yield


@pytest.fixture
def logged():
    """What MMEngine's logger says during the test, a list of texts."""
    texts = []
    handler = logging.Handler()
    handler.emit = lambda record: texts.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield texts
    logger.removeHandler(handler)


@pytest.fixture
def coco_folder(tmp_path):
    """A data set of 8 small photographs-to-be: ``images/``, ``train.json``
    (ids 10, 20, ..., 80) and ``train.npz``, whose image 80 has no box."""
    return make_coco_folder(tmp_path)


def make_coco_folder(root: Path, number: int = 8, side: int = 160) -> Path:
    rng = np.random.default_rng(0)
    (root / 'images').mkdir(parents=True)
    images, boxes = [], {}
    for i in range(1, number + 1):
        small = rng.integers(0, 256, (8, 10, 3), np.uint8)
        image = Image.fromarray(small).resize((side + 40, side))
        image.save(root / 'images' / f'{i}.jpg')
        images.append(
            dict(id=10 * i, file_name=f'{i}.jpg', width=side + 40,
                 height=side))
        boxes[10 * i] = filter_boxes(
            np.array([[x, y, x + 70, y + 70] for x in (0, 60, 120)
                      for y in (0, 45, 90)])[rng.permutation(9)],
            ProposalRules())
    boxes[10 * number] = np.zeros((0, 4), int)
    (root / 'train.json').write_text(json.dumps(dict(images=images)))
    write_proposals(root / 'train.npz', boxes,
                    dict(rules=ProposalRules().as_dict()))
    return root
