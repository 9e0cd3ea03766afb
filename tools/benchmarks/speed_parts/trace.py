"""What the GPU and the host do in a step, read from PyTorch's profiler."""
import json
import re
import tempfile
from pathlib import Path
from typing import Callable

from torch.profiler import ProfilerActivity, profile, record_function

from .timing import synchronize

RANGE = 'speed: one step'
DEVICE_KINDS = {'kernel', 'gpu_memcpy', 'gpu_memset'}
HOST_KINDS = {'cuda_runtime', 'cuda_driver'}
# The plain cudaMemcpy waits, its Async form does not.
WAIT = re.compile(
    r'(cuda|cu)(Stream|Event|Device|Ctx)Synchronize|cu(da)?Memcpy(_v2)?$')
LAUNCH = re.compile(r'cu(da)?(Graph)?(Launch|Memcpy|Memset)')


def trace_step(step: Callable, steps: int) -> dict:
    """Profile some steps on the GPU; return :func:`read_trace` of them."""
    synchronize()
    with profile(activities=[ProfilerActivity.CPU,
                             ProfilerActivity.CUDA]) as profiler:
        for _ in range(steps):
            with record_function(RANGE):
                step()
        synchronize()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'trace.json')
        profiler.export_chrome_trace(str(path))
        return read_trace(json.loads(path.read_text())['traceEvents'], steps)


def read_trace(events: list[dict], steps: int) -> dict:
    """Return the counts and the busy time of the GPU per step.

    Args:
        events (list[dict]): ``traceEvents`` of Chrome's format, times in
            microseconds.
        steps (int): Number of steps in the trace.

    Returns:
        dict: ``waits``, calls in which the host waits for the device;
        ``launches``, calls that start kernels, copies or graphs; ``kernels``
        that ran; ``busy_ms``, the time in which a kernel or a copy ran. All
        per step. Empty without kernels: the profiler saw no GPU.
    """
    timed = [x for x in events if 'dur' in x]
    ranges = [_span(x) for x in timed
              if x['name'] == RANGE and x.get('cat') == 'user_annotation']
    calls = [x['name'] for x in timed if x.get('cat') in HOST_KINDS
             and any(a <= x['ts'] <= b for a, b in ranges)]
    spans = [_span(x) for x in timed if x.get('cat') in DEVICE_KINDS]
    if not spans:
        return {}
    return dict(
        waits=sum(bool(WAIT.match(name)) for name in calls) / steps,
        launches=sum(bool(LAUNCH.match(name)) for name in calls) / steps,
        kernels=sum(x.get('cat') == 'kernel' for x in timed) / steps,
        busy_ms=1e-3 * _union(spans) / steps)


def _span(event: dict) -> tuple[float, float]:
    return event['ts'], event['ts'] + event['dur']


def _union(spans: list[tuple[float, float]]) -> float:
    """Return the length of the union of intervals."""
    total, end = 0.0, float('-inf')
    for start, stop in sorted(spans):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total
