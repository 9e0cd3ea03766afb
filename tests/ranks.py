"""Two processes of one test, in a process group."""
import multiprocessing
import os

import torch
import torch.distributed as dist


def run_ranks(function, folder, local_ranks=('0', '0')):
    """Call ``function(rank)`` in forked processes that share a gloo group.

    By default, each process is the only one of its node. Return for each rank
    the result, or the type and the text of the error.
    """
    context = multiprocessing.get_context('fork')
    queue = context.SimpleQueue()

    def work(rank):
        os.environ.update(LOCAL_RANK=local_ranks[rank])
        torch.set_num_threads(1)  # a fork has no threads of OpenMP
        dist.init_process_group('gloo', f'file://{folder}/group', rank=rank,
                                world_size=len(local_ranks))
        try:
            result = function(rank)
        except (Exception, SystemExit) as e:
            result = f'{type(e).__name__}: {e}'
        queue.put((rank, result))
        os._exit(0)

    processes = [context.Process(target=work, args=(rank, ))
                 for rank in range(len(local_ranks))]
    for process in processes:
        process.start()
    results = dict(queue.get() for _ in processes)
    for process in processes:
        process.join()
    return [results[rank] for rank in range(len(local_ranks))]
