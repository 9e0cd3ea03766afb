"""Measure the proposal search, the filter, the import and the proposal file.

The search and the import are compared with references in the same run. The
parts run in sequence. Run nothing else on the machine at the same time.
"""
import argparse
import json
import multiprocessing
import os
import platform
import random
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from pathlib import Path
from timeit import repeat, timeit

import cv2
import numpy as np

os.environ['UNIVIP_HOST'] = 'none'  # see univip_mm/__init__.py

from univip_mm.io.archive import split_path
from univip_mm.io.boxes import ProposalRules, filter_boxes, obeys_shape_rules
from univip_mm.io.coco_json import read_coco
from univip_mm.io.images import read_image
from univip_mm.io.outputs import check_output_file
from univip_mm.proposals import (
    ProposalFile,
    Search,
    generate_proposals,
    selective_search,
    write_proposals,
)
from univip_mm.proposals.importers import import_proposals
from univip_mm.proposals.inspect import recall
from univip_mm.utils.errors import one_line_errors
from univip_mm.utils.parallel import number_of_workers
from univip_mm.utils.progress import track

EXAMPLE = '''
examples:
  python tools/benchmarks/proposals.py --data-root data/coco128 \\
      --ann-file annotations/instances_train2017.json --img-prefix train2017
only the import, of a smaller JSON:
  python tools/benchmarks/proposals.py --parts import --import-mb 100
'''


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('--data-root', default='data/coco128',
        help='COCO folder (default: %(default)s)')
    add('--ann-file', default='annotations/instances_train2017.json',
        help='COCO json, below --data-root (default: %(default)s)')
    add('--img-prefix', default='train2017', help='folder of the images, '
        'below --data-root (default: %(default)s)')
    add('--num-images', type=int, metavar='N',
        help='use the first N images (default: all)')
    add('--import-mb', type=int, default=1000, metavar='MB',
        help='size of the JSON to import (default: %(default)s)')
    add('--parts', nargs='+', choices=MEASURE, default=MEASURE,
        help='parts to measure (default: all)')
    add('--out', help='json to write the figures to (default: none)')
    return parser.parse_args()


def load(args: argparse.Namespace) -> tuple[dict, list, Path]:
    """Read the json; return it, its first images, and their folder."""
    root = Path(args.data_root)
    if split_path(root / args.img_prefix):
        raise ValueError("--img-prefix is an archive, which the baselines "
                         'cannot read: set a folder')
    content = read_coco(root / args.ann_file)
    images = content['images'][:args.num_images]
    return content, images, root / args.img_prefix


def measure_search(args: argparse.Namespace) -> dict:
    """Compare generate_proposals with OpenCV alone on one core."""
    _, images, folder = load(args)
    workers = number_of_workers()
    cv2.setNumThreads(1)
    start = time.perf_counter()
    pixels = 0
    for image in track(images, desc='OpenCV alone'):
        bgr = cv2.imread(str(folder / image['file_name']))
        pixels += bgr[..., 0].size
        selective_search(bgr)
    alone = len(images) / (time.perf_counter() - start)
    with tempfile.TemporaryDirectory() as temporary:
        start = time.perf_counter()
        generate_proposals(images, folder, Path(temporary, 'a.npz'), Search(),
                           workers=workers)
        ours = len(images) / (time.perf_counter() - start)
    return {
        'OpenCV alone, one core, images/s': alone,
        f'generate_proposals, {workers} workers, images/s': ours,
        'ratio to workers x OpenCV alone (at least 0.9)':
            ours / (workers * alone),
        'mean megapixels per image': pixels / len(images) / 1e6,
    }


def measure_max_side(args: argparse.Namespace) -> dict:
    """Measure time, boxes and recall for several values of --max-side."""
    content, images, folder = load(args)
    ids = {image['id'] for image in images}
    annotations = [x for x in content['annotations'] if x['image_id'] in ids]
    figures = {}
    cv2.setNumThreads(1)
    for side in (160, 240, 320, 480, None):
        search = Search(max_side=side)
        name = f'max side {side}' if side else 'whole image'
        boxes, seconds = {}, 0.
        for image in track(images, desc=name):
            pixels = read_image(folder / image['file_name'])
            start = time.perf_counter()
            boxes[image['id']] = search(pixels)
            seconds += time.perf_counter() - start
        number, shares = recall(boxes, annotations)
        counts = [len(b) for b in boxes.values()]
        figures[name] = {
            'seconds per image': seconds / len(images),
            'boxes per image': float(np.mean(counts)),
            'images below 4': int(np.sum(np.array(counts) < 4)),
            f'recall at 0.5 of {number}': shares[0.5],
            'recall at 0.7': shares[0.7],
        }
    return figures


def measure_filter(args: argparse.Namespace) -> dict:
    """Measure filter_boxes with 2,000 boxes per image, on one core."""
    cv2.setNumThreads(1)
    _, images, folder = load(args)
    raw = [np.resize(selective_search(read_image(folder / x['file_name'])),
                     (2000, 4)) for x in images[:8]]
    rules = ProposalRules()
    kept = [filter_boxes(boxes, rules) for boxes in raw]  # also warms up
    seconds = timeit(
        lambda: [filter_boxes(boxes, rules) for boxes in raw], number=40)
    obeying = [obeys_shape_rules(boxes, rules).sum() for boxes in raw]
    return {
        'images/s per core at 2000 raw boxes (at least 1000)':
            40 * len(raw) / seconds,
        'of which obey size and ratio': float(np.mean(obeying)),
        'of which are kept': float(np.mean([len(x) for x in kept])),
    }


def write_orl(path: Path, megabytes: int) -> list:
    """Write a synthetic JSON in ORL's format, and return its images.

    An image has 2,000 boxes. The logarithm of their sides is uniform, similar
    to the sides of selective search.
    """
    rng = np.random.default_rng(0)
    images = []
    with open(path, 'w') as file:
        file.write('{"bbox": [')
        while file.tell() < megabytes * 1e6:
            low = rng.integers(0, 500, (2000, 2))
            sides = np.exp(rng.uniform(np.log(8), np.log(480), (2000, 2)))
            boxes = np.concatenate([low, sides], axis=1).round()
            file.write((', ' if images else '') + json.dumps(boxes.tolist()))
            images.append(dict(id=len(images), file_name=f'{len(images)}.jpg',
                               width=640, height=480))
        file.write(']}')
    return images


def in_process(function, *args) -> tuple:
    """Call a function in a new process.

    Returns the result, the seconds, and the peak memory before and after the
    call, MB.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context('fork')) as pool:
        return pool.submit(_measure, function, *args).result()


def _measure(function, *args) -> tuple:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    result = function(*args)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return result, seconds, before / 1024, peak / 1024


def parse_alone(path: Path) -> int:
    """Read the JSON with the streaming parser only."""
    import ijson
    with open(path, 'rb') as file:
        return sum(1 for _ in ijson.items(file, 'bbox.item', use_float=True))


def measure_import(args: argparse.Namespace) -> dict:
    """Compare the import of a synthetic ORL JSON with the parser alone."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary, 'orl.json')
        images = write_orl(path, args.import_mb)
        _, alone, _, _ = in_process(parse_alone, path)
        counts, seconds, before, peak = in_process(
            import_proposals, 'orl', path, images, Path(temporary, 'a.npz'),
            ProposalRules())
        size = path.stat().st_size / 1e6
    return {
        'size of the JSON, MB': size,
        'boxes': counts.read,
        'streaming parser alone, s': alone,
        'convert_proposals orl, s': seconds,
        'ratio to the parser alone (at most 2)': seconds / alone,
        'peak memory, MB (at most 500)': peak,
        'of which libraries, before the import, MB': before,
    }


def private_memory() -> float:
    """Return the memory that this process does not share, MB."""
    text = Path('/proc/self/smaps_rollup').read_text()
    return sum(int(line.split()[1]) for line in text.splitlines()
               if line.startswith('Private_')) / 1024


def _loader(path: Path, number: int, ready, results) -> None:
    ids = np.random.default_rng(0).permutation(number)
    before = private_memory()
    proposals = ProposalFile(path)
    for image_id in ids:
        proposals[image_id].sum()  # touch every page
    ready.wait()
    results.put(private_memory() - before)
    ready.wait()


def measure_file(_: argparse.Namespace) -> dict:
    """Measure a file of COCO's size: 118,287 images of 100 boxes."""
    number = 118_287
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary, 'a.npz')
        boxes = rng.integers(0, 640, (number, 100, 4), dtype=np.int16)
        write_proposals(path, dict(enumerate(boxes)), {})
        del boxes
        opening = repeat(lambda: ProposalFile(path), number=1, repeat=20)
        proposals = ProposalFile(path)
        picked = random.Random(1).choices(range(number), k=50_000)
        access = timeit(lambda: [np.array(proposals[i]) for i in picked],
                        number=1) / len(picked)
        context = multiprocessing.get_context('fork')
        ready, results = context.Barrier(8), context.SimpleQueue()
        loaders = [context.Process(target=_loader,
                                   args=(path, number, ready, results))
                   for _ in range(8)]
        for loader in loaders:
            loader.start()
        private = [results.get() for _ in loaders]
        for loader in loaders:
            loader.join()
        size = path.stat().st_size / 1e6
    return {
        'size of the file, MB': size,
        'opens in ms (at most 50)': 1e3 * float(np.median(opening)),
        'boxes of a random image, us (at most 20)': 1e6 * access,
        'private memory of each of 8 loaders, MB (at most 10)': max(private),
    }


MEASURE = {'search': measure_search, 'max_side': measure_max_side,
           'filter': measure_filter, 'import': measure_import,
           'file': measure_file}


def main() -> None:
    """Measure the parts, print the figures, and write them if asked."""
    args = parse_args()
    if args.out:
        with one_line_errors():
            check_output_file(args.out, '--out')
    figures = dict(
        machine=f'{platform.machine()}, {os.cpu_count()} cores',
        date=date.today().isoformat(), opencv=cv2.__version__)
    for part in args.parts:
        with one_line_errors():
            figures[part] = MEASURE[part](args)
        print(f'\n{part}')
        for name, value in figures[part].items():
            if isinstance(value, dict):
                print(f'  {name:14}' + '  '.join(
                    f'{k} {v:.3g}' for k, v in value.items()))
            else:
                print(f'  {name:55}{value:12.5g}')
    if args.out:
        Path(args.out).write_text(json.dumps(figures, indent=1))


if __name__ == '__main__':
    main()
