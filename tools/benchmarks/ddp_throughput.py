"""Images a second of processes that train together; torchrun starts it.

Each process has a batch of 32 images of its own, as in the recipe. The first
one prints the figure.
"""
import time

import torch
import torch.distributed as dist
from mmengine.logging import MessageHub
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import init_default_scope
from speed import Step, device, make_views, small_univip

from univip_mm.utils.distributed import leave, start_gloo

STEPS = 6


def main() -> None:
    init_default_scope('univip_mm')
    torch.set_num_threads(1)
    if device() == 'cuda':
        dist.init_process_group('nccl')
        torch.cuda.set_device(dist.get_rank())
    else:
        start_gloo('pytorch')
    MessageHub.get_current_instance().update_info('max_iters', 10**6)
    step = Step(small_univip(4), make_views(32, 4, 64, 32))
    inner = step.model
    parallel = MMDistributedDataParallel(inner, broadcast_buffers=False)
    step.model = _Parallel(parallel)
    step()
    dist.barrier()
    start = time.perf_counter()
    for _ in range(STEPS):
        step()
    dist.barrier()
    seconds = time.perf_counter() - start
    if dist.get_rank() == 0:
        print(STEPS * 32 * dist.get_world_size() / seconds)


class _Parallel:
    """Calls the wrapper, and asks the model within for the rest."""

    def __init__(self, wrapper) -> None:
        self._wrapper = wrapper

    def __call__(self, *args, **kwargs):
        return self._wrapper(*args, **kwargs)

    def __getattr__(self, name):
        return getattr(self._wrapper.module, name)


if __name__ == '__main__':
    main()
    leave()
