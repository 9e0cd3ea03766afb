"""A run of seconds: small images, a small network, few boxes."""
import cv2
import numpy as np

from univip_mm.workflow.plan import Request, make_plan

# resnet18 of an eighth of its width.
OVERRIDES = {
    'model.backbone.base_channels': 8,
    'model.backbone.stem_channels': 8,
    'model.neck.in_channels': 64,
    'model.neck.hid_channels': 32,
    'model.neck.out_channels': 16,
    'model.head.predictor.in_channels': 16,
    'model.head.predictor.hid_channels': 32,
    'model.head.predictor.out_channels': 16,
    'model.fusion_neck.in_channels': 16,
    'model.fusion_neck.out_channels': 16,
    'train_dataloader.num_workers': 0,
    'train_dataloader.persistent_workers': False,
    'train_dataloader.dataset.pipeline.1.scene_size': 32,
    'train_dataloader.dataset.pipeline.1.instance_size': 16,
    'proposal_rules.min_size': 16,
}


def write_photographs(folder, number=8):
    """Write images of bright rectangles, and one that is damaged."""
    (folder / 'sub').mkdir(parents=True)
    for i in range(number):
        random = np.random.default_rng(i)
        image = np.full((96, 120, 3), 30 * i % 200, np.uint8)
        for _ in range(6):
            x, y = random.integers(0, 80), random.integers(0, 60)
            image[y:y + 30, x:x + 34] = random.integers(0, 256, 3)
        name = f'sub/{i}.png' if i % 2 else f'{i}.png'
        cv2.imwrite(str(folder / name), image)
    (folder / 'broken.jpg').write_bytes(b'\xff\xd8\xff no image')
    (folder / 'notes.txt').write_text('not an image')
    return folder


def small_plan(run, folder, resume=False, **options):
    """Return the request and the plan of a small run."""
    request = Request(str(folder), **{
        'arch': 'resnet18', 'devices': 'cpu', 'overrides': OVERRIDES,
        **options})
    return request, make_plan(run, request, resume)
