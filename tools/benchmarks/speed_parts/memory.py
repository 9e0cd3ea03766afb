"""Private memory of the workers of a data loader, with COCO's list."""
import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader

from univip_mm.datasets import EpochSampler, ProposalCocoDataset
from univip_mm.io.boxes import ProposalRules
from univip_mm.proposals import write_proposals

NUM_IMAGES = 118_287  # COCO train2017
EPOCHS = (1, 20)
WORKERS = 2
MiB = 2**20


def measure_memory(args: argparse.Namespace) -> dict:
    """Measure the memory that each worker has for itself, in MiB.

    The workers read the entry and the proposals of each image, no pixels. A
    short list shows how much of the memory is not due to the list.
    """
    results = {}
    for number in (128, NUM_IMAGES):
        with tempfile.TemporaryDirectory() as folder:
            found = _measure(make_list(Path(folder), number))
        goal = ' (at most 20)' if number == NUM_IMAGES else ''
        for epoch, memory in found.items():
            results[f'{number:,} images, epoch {epoch}, MiB{goal}'] = memory
    return results


def make_list(folder: Path, number: int) -> ProposalCocoDataset:
    """Return a data set of images with 90 proposals each, without files."""
    boxes = np.array([[x, y, x + 100, y + 100] for x in range(0, 500, 50)
                      for y in range(0, 360, 40)])
    images = [dict(id=i, file_name=f'{i:012}.jpg', width=640, height=480)
              for i in range(number)]
    (folder / images[0]['file_name']).touch()
    (folder / 'images.json').write_text(json.dumps(dict(images=images)))
    write_proposals(folder / 'proposals.npz',
                    {image['id']: boxes for image in images},
                    dict(rules=ProposalRules().as_dict()))
    return ProposalCocoDataset(
        ann_file='images.json', proposal_file='proposals.npz',
        data_root=str(folder), pipeline=[_count_proposals])


def _count_proposals(results: dict) -> int:
    return len(results['proposals'])


def _measure(dataset: ProposalCocoDataset) -> dict[int, float]:
    """Return the memory of the largest worker after some of the epochs."""
    sampler = EpochSampler(dataset, seed=0)
    loader = DataLoader(
        dataset, batch_size=64, sampler=sampler, collate_fn=len,
        num_workers=WORKERS, persistent_workers=True)
    found = {}
    for epoch in range(max(EPOCHS)):
        sampler.set_epoch(epoch)
        batches = iter(loader)
        assert sum(batches) == len(dataset)
        if epoch + 1 in EPOCHS:
            found[epoch + 1] = max(
                private_bytes(worker.pid) for worker in batches._workers) / MiB
    return found


def private_bytes(pid: int) -> int:
    """Return the bytes that a process has changed and shares with no other."""
    for line in Path(f'/proc/{pid}/smaps_rollup').read_text().splitlines():
        if line.startswith('Private_Dirty:'):
            return 1024 * int(line.split()[1])
    raise ValueError(f'no Private_Dirty in /proc/{pid}/smaps_rollup')
