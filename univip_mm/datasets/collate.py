"""Batches of views, or of images whose views the training device cuts."""
from collections.abc import Sequence

import torch
from mmengine.dataset import default_collate
from torch import Tensor
from torch.utils.data import get_worker_info

from ..registry import FUNCTIONS


@FUNCTIONS.register_module()
def collate_views(samples: Sequence[dict]) -> dict:
    """Collate the samples of a data set with ``OverlapSceneCrop``.

    Views are stacked by MMEngine's ``default_collate``. Of samples with
    ``cut='device'``, ``inputs`` becomes a dict with ``pixels``, the values of
    all images, (total,) uint8; ``table``, (B, 2 + K, 8) int64, as in
    :func:`~univip_mm.models.view_cutter.cut_views`; and ``sizes``, the sides
    of the 2 + K views. If images are not decoded, ``files``, (total,) uint8,
    has their JPEG files, and ``lengths`` the length of the file of each of
    the B images, 0 for images in ``pixels``. So an image is copied once in
    the worker, and a batch reaches the device in one copy.

    Args:
        samples (Sequence[dict]): Packed samples.
    """
    first = samples[0]['inputs']
    if not (isinstance(first, list) and _is_uncut(first)):
        return default_collate(samples)
    images, boxes = zip(*(sample['inputs'] for sample in samples))
    rest = [{key: value for key, value in sample.items() if key != 'inputs'}
            for sample in samples]
    files = [x for x in images if x.ndim == 1]
    inputs = dict(
        pixels=_join([x for x in images if x.ndim == 3]),
        table=_table_of_views([x.shape for x in images],
                              torch.stack([x[:, :4] for x in boxes])),
        sizes=boxes[0][:, 4].tolist())
    if files:
        inputs.update(files=_join(files), lengths=[
            len(x) if x.ndim == 1 else 0 for x in images])
    return dict(inputs=inputs, **default_collate(rest))


def _is_uncut(inputs: list) -> bool:
    """Return True for [image or file, boxes (2 + K, 5)], not for views."""
    return len(inputs) == 2 and inputs[1].ndim == 2


def _join(images: Sequence[Tensor]) -> Tensor:
    """Join all values in one tensor, which a worker shares without a copy."""
    total = sum(image.numel() for image in images)
    out = torch.empty(0 if get_worker_info() else total, dtype=torch.uint8)
    if get_worker_info() and total:
        # As PyTorch's default_collate allocates its batches.
        storage = getattr(out, '_typed_storage', out.storage)()
        out = out.new(storage._new_shared(total, device=out.device))
        out.resize_(total)
    for part, image in zip(out.split([x.numel() for x in images]), images):
        part.view(image.shape).copy_(image)
    return out


def _table_of_views(shapes: Sequence[Sequence[int]], boxes: Tensor) -> Tensor:
    """Return the table of the views of images that are stored in a row.

    Args:
        shapes (Sequence): Shape (h, w, 3) of each image; (length,) of a file,
            whose layout stays 0 until it is decoded.
        boxes (Tensor): Boxes (B, V, 4) int64, xyxy, in pixels of their image.

    Returns:
        Tensor: (B, V, 8) int64.
    """
    rows, base = [], 0
    for shape in shapes:
        if len(shape) == 1:
            rows.append([0] * 4)
            continue
        height, width, channels = shape
        rows.append([base, width * channels, channels, 1])
        base += height * width * channels
    layout = torch.tensor(rows)[:, None].expand(-1, boxes.shape[1], -1)
    return torch.cat([layout, boxes], dim=2)
