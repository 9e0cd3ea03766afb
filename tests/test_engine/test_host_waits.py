"""In a training iteration, the host does not wait for the device."""
import pytest
import torch
from host_waits import recorded_waits
from mmengine.runner import EpochBasedTrainLoop
from tiny import run_tool, write_config

pytestmark = pytest.mark.skipif(
    torch.__version__ < '2.4',
    reason='PyTorch before 2.4 has no fused optimizers for the CPU')


@pytest.fixture
def waits(coco_folder, monkeypatch):
    """Return a list of reads for each iteration between first and last.

    The first iteration of a training reads the number of updates; the last
    iteration of an epoch is logged.
    """
    found, run_iter = [], EpochBasedTrainLoop.run_iter

    def watched(loop, idx, data_batch):
        if loop.iter == 0 or idx == len(loop.dataloader) - 1:
            return run_iter(loop, idx, data_batch)
        with recorded_waits() as waits:
            run_iter(loop, idx, data_batch)
        found.append(waits)

    monkeypatch.setattr(EpochBasedTrainLoop, 'run_iter', watched)
    base = write_config(coco_folder)
    config = coco_folder / 'without_watch.py'
    config.write_text(f"_base_ = './{base.name}'\ncustom_hooks = []\n"
                      "default_hooks = dict(logger=dict(interval=50),\n"
                      "    non_finite=dict(action='skip'))\n")
    run_tool('train', config, '--work-dir', coco_folder / 'run')
    return found


def test_iteration_does_not_wait_for_device(waits):
    assert len(waits) >= 2  # the training has such iterations
    found = sum(waits, [])
    assert not found, f'{len(found)} waits, the first at {found[0]}'


def test_recorded_waits_find_all_kinds_of_reads():
    x = torch.ones(2)
    with recorded_waits() as waits:
        x[0].item(), bool(x[0]), float(x[0]), x.tolist(), x.cpu()
        x.to('cpu'), x[x > 0], x.nonzero(), x + 1
    assert len(waits) == 8
