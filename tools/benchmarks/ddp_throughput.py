"""Print the images per second of distributed training.

``speed.py --parts growth`` starts this script by torchrun. Each process
trains a small UniVIP on batches of 32 images, as in the recipe.
"""
import time
from functools import partial

import torch
import torch.distributed as dist
from mmengine.logging import MessageHub
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import init_default_scope
from speed_parts.growth import small_step
from speed_parts.timing import device

from univip_mm.utils.distributed import leave, start_gloo

BATCH_SIZE, STEPS = 32, 6


def main() -> None:
    """Train for some steps; the first process prints the throughput."""
    init_default_scope('univip_mm')
    torch.set_num_threads(1)
    if device() == 'cuda':
        dist.init_process_group('nccl')
        torch.cuda.set_device(dist.get_rank())
    else:
        start_gloo('pytorch')
    MessageHub.get_current_instance().update_info('max_iters', 10**6)
    step = small_step(BATCH_SIZE, parallel=partial(
        MMDistributedDataParallel, broadcast_buffers=False))
    step()
    dist.barrier()
    start = time.perf_counter()
    for _ in range(STEPS):
        step()
    dist.barrier()
    seconds = time.perf_counter() - start
    if dist.get_rank() == 0:
        print(STEPS * BATCH_SIZE * dist.get_world_size() / seconds)


if __name__ == '__main__':
    main()
    leave()
