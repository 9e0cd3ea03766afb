"""Speed of the data loader on one core."""
import argparse
import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import NamedTuple, Optional

import cv2
import numpy as np
import simplejpeg
from byol_pipeline import decode

from univip_mm import proposals
from univip_mm.datasets import ProposalCocoDataset
from univip_mm.io.archive import split_path
from univip_mm.io.cache_writer import cache_pixels
from univip_mm.io.coco_json import read_coco

from .timing import time_interleaved

BYOL_PIPELINE = Path(__file__).parents[1] / 'byol_pipeline.py'
NUM_LARGE = 16  # images of 12 megapixels
EXACT, DEVICE_CUT, CACHE = 'exact', 'cut on the device', 'pixel cache'
# Only the work of the loader: another device decodes.
BYTES = 'bytes and boxes only'
# Options of the loader and of the crop.
PATHS: dict[str, tuple[dict, dict]] = {
    EXACT: ({}, {}),
    DEVICE_CUT: ({}, dict(cut='device')),
    BYTES: (dict(decode='device'), dict(cut='device')),
    'fast_dct': (dict(fast_dct=True), {}),
    'fast_dct and bilinear': (dict(fast_dct=True),
                              dict(interpolation='bilinear'))}
GOALS = {EXACT: 0.81, DEVICE_CUT: 0.93, BYTES: 4, CACHE: 2.3}  # shares


class Images(NamedTuple):
    """Images with annotations and proposals."""
    ann_file: Path
    folder: Path
    proposal_file: Path
    number: int  # the first images are used

    def dataset(self, load: Optional[dict] = None,
                crop: Optional[dict] = None) -> ProposalCocoDataset:
        """Build the recipe's data set at epoch 0.

        ``load`` and ``crop`` are options of LoadEncodedImage and
        OverlapSceneCrop.
        """
        meta_keys = ('img_path', 'img_id', 'num_proposed', 'view_seed')
        dataset = ProposalCocoDataset(
            ann_file=str(self.ann_file),
            proposal_file=str(self.proposal_file),
            data_prefix=dict(img_path=str(self.folder)), indices=self.number,
            pipeline=[dict(type='LoadEncodedImage', **(load or {})),
                      dict(type='OverlapSceneCrop', **(crop or {})),
                      dict(type='PackInputs', meta_keys=meta_keys)])
        dataset.set_epoch(0, 0)
        return dataset


def find_images(args: argparse.Namespace) -> Images:
    """Return the images of the command line; make missing proposals."""
    ann_file = Path(args.data_root, args.ann_file)
    folder = Path(args.data_root, args.img_prefix)
    if split_path(folder):
        raise ValueError(f"--img-prefix is the archive '{folder}', which the "
                         'baselines cannot read: set a folder')
    path = Path(args.proposal_file or Path(args.work_dir, 'proposals.npz'))
    if not args.proposal_file and not path.exists():
        proposals.generate_proposals(read_coco(ann_file)['images'], folder,
                                     path, proposals.Search())
    return Images(ann_file, folder, path, args.num_images)


def calls_of(dataset: ProposalCocoDataset) -> list:
    """Return one call per image that loads the image."""
    return [partial(dataset.__getitem__, i) for i in range(len(dataset))]


def measure_loader(args: argparse.Namespace) -> dict:
    """Compare the work per image on one core with decoding the JPEG.

    The share of a path is its images per second divided by those of
    ``cv2.imdecode`` on the same files in the same run.
    """
    images = find_images(args)
    plain = images.dataset()
    paths = [plain.get_data_info(i)['img_path'] for i in range(len(plain))]
    options = {**PATHS, CACHE: (dict(cache=_cache(images, args)), {})}
    seconds = time_interleaved({
        'decode': [partial(decode, p) for p in paths],
        **{name: calls_of(images.dataset(*x)) for name, x in options.items()},
        'decode and resize alone': _resize_calls(plain)}, repeats=5, block=16)
    alone = seconds.pop('decode')
    step = args.step_ms / 1000
    results = {'JPEG decode alone, images/s': 1 / alone}
    for name, value in seconds.items():
        goal = GOALS.get(name)
        results[f'{name}: images/s'] = 1 / value
        share = f'{name}: share' + (f' (at least {goal})' if goal else '')
        results[share] = alone / value
        cores = (f'{name}: cores for {args.images_per_step} images in '
                 f'{args.step_ms:g} ms')
        results[cores] = args.images_per_step * value / step
    results.update(_psnr_of_fast_dct(paths))
    if args.numpy1:
        byol = _measure_byol_pipeline(args.numpy1, paths)
        results["host's BYOL pipeline, 2 x 224, images/s"] = 1 / byol['byol']
        # Relative to decoding, which both processes measure.
        results["ratio to host's BYOL (at least 4)"] = (
            (byol['byol'] / byol['decode']) / (seconds[EXACT] / alone))
    results.update(_measure_reduce(images))
    return results


def _cache(images: Images, args: argparse.Namespace) -> str:
    """Return the path of a pixel cache with the images."""
    path = Path(args.work_dir, 'images.pixels')
    cache_pixels(read_coco(images.ann_file)['images'][:images.number],
                 images.folder, path)
    return str(path)


def _resize_calls(dataset: ProposalCocoDataset) -> list:
    """Return one call per image that only decodes and resizes six views.

    The image was read before. Its pixels are in the cache of the CPU when
    they are resized, as in the loader.
    """
    load, crop = dataset.pipeline.transforms[:2]

    def work(data: bytes, views: list) -> None:
        pixels = simplejpeg.decode_jpeg(data, 'BGR')
        for (x1, y1, x2, y2), size in views:
            cv2.split(cv2.resize(pixels[y1:y2, x1:x2], (size, size),
                                 interpolation=cv2.INTER_CUBIC))

    calls = []
    for index in range(len(dataset)):
        results = crop(load(dataset.get_data_info(index)))
        boxes = [*results['scene_boxes'], *results['instance_boxes']]
        views = [(box.tolist(), len(view))
                 for box, view in zip(boxes, results['img'])]
        data = Path(results['img_path']).read_bytes()
        calls.append(partial(work, data, views))
    return calls


def _psnr_of_fast_dct(paths: list) -> dict:
    files = [Path(path).read_bytes() for path in paths]
    values = [cv2.PSNR(simplejpeg.decode_jpeg(file, 'BGR'),
                       simplejpeg.decode_jpeg(file, 'BGR', fastdct=True))
              for file in files]
    return {'PSNR of fast_dct, dB, mean': float(np.mean(values)),
            'PSNR of fast_dct, dB, lowest': float(np.min(values))}


def _measure_byol_pipeline(numpy1: str, paths: list) -> dict:
    """Return the output of byol_pipeline.py, run with NumPy 1."""
    python_path = [Path(numpy1).resolve(), os.environ.get('PYTHONPATH', '')]
    env = {**os.environ, 'OMP_NUM_THREADS': '1',
           'PYTHONPATH': os.pathsep.join(map(str, python_path))}
    output = subprocess.run(
        [sys.executable, BYOL_PIPELINE], input=json.dumps(paths), env=env,
        check=True, text=True, stdout=subprocess.PIPE).stdout
    return json.loads(output.splitlines()[-1])


def _measure_reduce(images: Images) -> dict:
    """Measure the gain of ``reduce`` on images of 12 megapixels.

    The PSNR compares the views with the views of a full decoding.
    """
    with tempfile.TemporaryDirectory() as folder:
        large = _enlarge(images, Path(folder))
        full, reduced = large.dataset(), large.dataset(dict(reduce=True))
        seconds = time_interleaved(
            dict(full=calls_of(full), reduced=calls_of(reduced)), repeats=2)
        psnr = [cv2.PSNR(a.numpy(), b.numpy()) for i in range(len(full))
                for a, b in zip(full[i]['inputs'], reduced[i]['inputs'])]
    return {
        '12 megapixels: images/s': 1 / seconds['full'],
        '12 megapixels, reduce: images/s': 1 / seconds['reduced'],
        '12 megapixels, reduce: gain': seconds['full'] / seconds['reduced'],
        'PSNR of its views, dB, mean': float(np.mean(np.minimum(psnr, 60))),
        'PSNR of its views, dB, lowest': float(np.min(psnr))}


def _enlarge(images: Images, folder: Path) -> Images:
    """Write the first images and their boxes at a long side of 4000."""
    file = proposals.ProposalFile(images.proposal_file)
    infos, boxes = [], {}
    for info in read_coco(images.ann_file)['images'][:NUM_LARGE]:
        pixels = cv2.imread(str(images.folder / info['file_name']))
        factor = 4000 / max(pixels.shape)
        large = cv2.resize(pixels, None, fx=factor, fy=factor,
                           interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / info['file_name']), large,
                    [cv2.IMWRITE_JPEG_QUALITY, 90])
        infos.append(dict(info, width=large.shape[1], height=large.shape[0]))
        scaled = np.array(file[info['id']]) * factor
        boxes[info['id']] = np.floor(scaled).astype(int)
    ann_file, out = folder / 'images.json', folder / 'proposals.npz'
    ann_file.write_text(json.dumps(dict(images=infos)))
    proposals.write_proposals(out, boxes, dict(rules=file.meta['rules']))
    return Images(ann_file, folder, out, NUM_LARGE)
