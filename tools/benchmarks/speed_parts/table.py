"""Table of training steps, which is complete after each new value."""
import argparse
import gc
import os
import sys
import time
from collections.abc import Iterator
from functools import partial
from statistics import median
from typing import Callable

import torch
from mmengine.logging import MessageHub

from .counters import count_step
from .goals import compare_rows
from .rows import CPU_ROWS, GPU_ROWS, Row, build_step
from .step import make_batches, univip_config
from .timing import device, synchronize, take_turns
from .trace import trace_step

NOT_MEASURED = 'not measured: budget'
WARM_UP, STEPS, TRACED = 4, 20, 3
TURNS = 2
# Estimated seconds of a row until a similar row is measured. Inductor: one
# measurement on an H100 with 16 cores, which compile in parallel.
COSTS = {None: 20.0, 'cuda_graph': 30.0,
         'inductor': 130.0 * max(1.0, 16 / (os.cpu_count() or 1))}
# Share of the first compilation in a later one, which finds most kernels in
# the compiler's cache: the backbones are the same.
CACHED = 0.4


def measure_step(args: argparse.Namespace, run: dict, earlier: dict
                 ) -> Iterator[dict]:
    """Yield the table of training steps after each measurement.

    Args:
        args (argparse.Namespace): The command line.
        run (dict): Machine and options, which the table keeps.
        earlier (dict): Table of an earlier run, or {}. With ``args.resume``,
            its rows are not measured again.

    Raises:
        ValueError: The rows of the earlier table cannot be kept.
    """
    MessageHub.get_current_instance().update_info('max_iters', 10**6)
    gpu = device() == 'cuda'
    rows = GPU_ROWS if gpu else CPU_ROWS
    known = keep_rows(earlier, run, gpu) if args.resume else {}
    table = {row.name: known.get(row.name, {}) for row in rows}
    budget = args.budget if args.budget is not None else (
        300.0 if gpu else float('inf'))
    build = partial(build_step, config=partial(univip_config, args.depth),
                    batches=make_batches(3, args.batch_size))
    measure = measure_in_sequence if gpu else measure_in_turns
    for _ in measure(rows, table, build, budget):
        for values in table.values():
            if 'ms' in values:
                values['images_per_s'] = 1e3 * args.batch_size / values['ms']
        yield dict(run=run, rows=table,
                   comparisons=compare_rows(table, gpu, args.depth))


def keep_rows(earlier: dict, run: dict, gpu: bool) -> dict:
    """Return the measured rows of an earlier table with the same options.

    Raises:
        ValueError: The machine or an option has changed, or there is no GPU.
    """
    if not gpu:
        raise ValueError('--resume needs a GPU: on a CPU, the steps are timed '
                         'in turns. Leave --resume out')
    if 'rows' not in earlier:
        return {}
    before = earlier['run']
    changed = [key for key in run
               if key != 'date' and before.get(key) != run[key]]
    if changed:
        raise ValueError(
            f'--resume: {changed[0]} was {before.get(changed[0])!r} and is '
            f'{run[changed[0]]!r}: use the same options, or leave --resume '
            'out')
    return {name: row for name, row in earlier['rows'].items() if 'ms' in row}


def measure_in_sequence(rows: list[Row], table: dict[str, dict],
                        build: Callable[[Row], Callable],
                        budget: float) -> Iterator[None]:
    """Build, measure and delete one step after the other.

    For a GPU, whose memory does not hold all steps. A row that fails, or is
    likely to exceed the budget, gets a ``status``; the other rows follow.

    Args:
        rows (list[Row]): The rows, the most important first.
        table (dict): Values of each row, filled in place. A row with ``ms``
            is not measured again.
        build (Callable): Builds the step of a row.
        budget (float): Seconds for all rows.
    """
    start = time.perf_counter()
    for row in rows:
        values = table[row.name]
        if 'ms' in values:
            continue
        estimate = estimate_cost(row, rows, table)
        if time.perf_counter() - start + estimate > budget:
            values.update(status=NOT_MEASURED, estimate_s=estimate)
            yield
            continue
        values.clear()
        begin = time.perf_counter()
        print(f'step: {row.name} ...', file=sys.stderr, flush=True)
        try:
            _measure_row(row, values, build)
        except Exception as e:  # the other rows are still worth measuring
            values['status'] = f'failed: {type(e).__name__}: {_one_line(e)}'
        values['cost_s'] = time.perf_counter() - begin
        _free_memory(row)
        yield


def measure_in_turns(rows: list[Row], table: dict[str, dict],
                     build: Callable[[Row], Callable],
                     budget: float) -> Iterator[None]:
    """Build all steps and count their operations, then time them in turns.

    For a CPU, whose speed changes. The arguments are those of
    :func:`measure_in_sequence`.
    """
    start = time.perf_counter()
    steps, cost = {}, 0.0
    for row in rows:
        values = table[row.name]
        begin = time.perf_counter()
        if begin - start + cost > budget:
            values['status'] = NOT_MEASURED
            continue
        steps[row.name] = step = build(row)
        step()  # the first update of the target differs from later updates
        values['start_s'] = time.perf_counter() - begin
        values.update(_count(row, step))
        cost = time.perf_counter() - begin
        yield
    times: dict[str, list[float]] = {name: [] for name in steps}
    turns = take_turns({k: [step] for k, step in steps.items()}, TURNS)
    for _, name, seconds in turns:
        times[name].append(1e3 * seconds)
        table[name].update(
            ms=min(times[name]), ms_median=median(times[name]),
            ms_min=min(times[name]))
        yield
        if time.perf_counter() - start + 1e-3 * max(
                max(x, default=0) for x in times.values()) > budget:
            break
    for values in table.values():
        if 'ms' not in values:
            values['status'] = NOT_MEASURED
    yield


def estimate_cost(row: Row, rows: list[Row], table: dict) -> float:
    """Return the seconds that a row is expected to take.

    The estimate is the largest cost of the measured rows with the same kind
    of compilation, or else a constant.
    """
    costs = [table[other.name]['cost_s'] for other in rows
             if other.graph == row.graph and 'ms' in table[other.name]]
    share = CACHED if row.graph == 'inductor' else 1.0
    return share * max(costs) if costs else COSTS[row.graph]


def _measure_row(row: Row, values: dict, build: Callable) -> None:
    """Fill the values of a row, the times first."""
    begin = time.perf_counter()
    step = build(row)
    for _ in range(WARM_UP):
        step()
    synchronize()
    values['start_s'] = time.perf_counter() - begin
    values.update(_time(step))
    if device() == 'cuda':
        values.update(_peak_memory(step))
        values.update(trace_step(step, TRACED))
        if 'busy_ms' in values:
            values['busy'] = values['busy_ms'] / values['ms']
    if row.graph != 'inductor':  # a counter would switch the compiler off
        values.update(_count(row, step))


def _time(step: Callable) -> dict:
    """Return milliseconds of single steps and of steps in a row.

    In a training, the host does not wait for the device after each step, so
    ``ms`` is the time of steps in a row.
    """
    times = []
    while len(times) < 5 or len(times) < STEPS and sum(times) < 4:
        begin = time.perf_counter()
        step()
        synchronize()
        times.append(time.perf_counter() - begin)
    begin = time.perf_counter()
    for _ in times:
        step()
    synchronize()
    in_a_row = (time.perf_counter() - begin) / len(times)
    return dict(ms=1e3 * in_a_row, ms_median=1e3 * median(times),
                ms_min=1e3 * min(times), steps=len(times))


def _peak_memory(step: Callable) -> dict:
    """Return the GPU memory of a step in GiB, reserved and allocated.

    The memory of a captured graph is reserved, but not allocated.
    """
    torch.cuda.empty_cache()  # also workspaces that cuDNN only tried
    torch.cuda.reset_peak_memory_stats()
    for _ in range(2):
        step()
    synchronize()
    return dict(GiB=torch.cuda.max_memory_reserved() / 2**30,
                GiB_allocated=torch.cuda.max_memory_allocated() / 2**30)


def _count(row: Row, step: Callable) -> dict:
    """Return the operations and host reads; per stage for eager UniVIP."""
    staged = row.kind == 'univip' and not row.graph
    counter = count_step(step, step.stages() if staged else None)
    values = dict(operations=sum(counter.operations.values()),
                  reads=sum(counter.reads.values()),
                  read_places=dict(counter.reads))
    if staged:
        values['stages'] = dict(counter.operations)
    return values


def _one_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [''])[0][:200]


def _free_memory(row: Row) -> None:
    if row.graph == 'inductor':
        torch._dynamo.reset()
    gc.collect()
    if device() == 'cuda':
        torch.cuda.empty_cache()
