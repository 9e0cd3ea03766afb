"""Files and pictures for the tests of the pictures."""
import json

import matplotlib.image
import numpy as np
import torch
from mmengine.config import Config
from tiny import write_config

from univip_mm.registry import MODELS


def annotate(folder):
    """Annotate a cat above 64 pixels and a smaller dog in each image."""
    path = folder / 'train.json'
    content = json.loads(path.read_text())
    content['categories'] = [dict(id=1, name='cat'), dict(id=2, name='dog')]
    content['annotations'] = [
        dict(id=10 * i + category, image_id=image['id'], category_id=category,
             bbox=[8 * i, 5, side, side], area=side**2, iscrowd=0)
        for i, image in enumerate(content['images'])
        for category, side in ((1, 90), (2, 20 if i % 2 else 70))
    ]
    path.write_text(json.dumps(content))


def write_run(folder):
    """Write annotations, a config, and a checkpoint of random weights."""
    annotate(folder)
    config = write_config(folder)
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(config).model)
    path = folder / 'epoch_1.pth'
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    return config, path


def write_log(work_dir, folder, steps, loss=0., **more):
    """Write a log of MMEngine's LocalVisBackend."""
    path = work_dir / folder / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text(''.join(
        json.dumps(
            dict(lr=0.1, loss=3 * loss, loss_scene=loss, loss_instance=loss,
                 loss_scene_instance=loss, epoch=1, iter=step, step=step,
                 **more)) + '\n' for step in steps))
    return path


def read_png(path):
    """Read a picture as (height, width, 3) uint8, RGB."""
    picture = matplotlib.image.imread(path)[..., :3]
    return (picture * 255).round().astype(np.uint8)
