import importlib
import json
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from tiny import ROOT, univip_config

from univip_mm.models import (
    UniVIPDataPreprocessor,
    data_preprocessor,
    step_graph,
)

FOLDER = ROOT / 'tools' / 'benchmarks'


@pytest.fixture
def load_part(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return lambda name: importlib.import_module(f'speed_parts.{name}')


@pytest.fixture
def build_small(load_part, univip_scope):
    """Build the step of a row on a model that takes milliseconds."""
    MessageHub.get_current_instance().update_info('max_iters', 10**6)
    batches = load_part('step').make_batches(2, 3, 2, 32, 16)

    def build(row):
        return load_part('rows').build_step(
            row, lambda precision: Config(univip_config(2, 8)), batches)

    return build


def test_time_interleaved_alternates_functions(load_part):
    calls = []
    seconds = load_part('timing').time_interleaved({
        name: [lambda n=name, i=i: calls.append((n, i)) for i in range(3)]
        for name in 'ab'}, repeats=2)
    once = [(name, i) for i in range(3) for name in 'ab']
    assert calls == 3 * once  # one warm-up
    assert seconds.keys() == {'a', 'b'} and min(seconds.values()) > 0
    calls.clear()
    load_part('timing').time_interleaved({
        name: [lambda n=name, i=i: calls.append((n, i)) for i in range(3)]
        for name in 'ab'}, repeats=1, block=2)
    assert ''.join(f'{n}{i}' for n, i in calls) == 2 * 'a0a1b0b1a2b2'


def test_memory_of_workers_is_measured(load_part, monkeypatch):
    memory = load_part('memory')
    monkeypatch.setattr(memory, 'NUM_IMAGES', 200)
    monkeypatch.setattr(memory, 'EPOCHS', (1, 2))
    found = memory.measure_memory(None)
    assert len(found) == 4 and 1 < min(found.values()) < 200


def test_speed_writes_results_of_equal_solvers(tmp_path):
    ended = subprocess.run(
        [sys.executable, FOLDER / 'speed.py', '--parts', 'sinkhorn',
         '--work-dir', tmp_path], capture_output=True, text=True, timeout=200)
    assert ended.returncode == 0, ended.stderr
    results = json.loads((tmp_path / 'speed.json').read_text())
    assert results['sinkhorn']['largest difference (at most 1e-5)'] < 1e-5
    assert 'ratio (at least 3)' in ended.stdout
    assert results['run'].keys() >= {'machine', 'date', 'torch', 'device'}


def test_count_operations_ignores_views_and_chunks(load_part, monkeypatch):
    count_operations = load_part('counters').count_operations
    x = torch.ones(2, 3)
    # The sum and the product count, the views of x do not.
    assert count_operations(lambda: (x + x).view(6).t() * 2) == 2
    preprocessor = UniVIPDataPreprocessor(seed=0)
    views = [torch.zeros(4, 3, size, size, dtype=torch.uint8)
             for size in (16, 16, 8)]

    def count():
        preprocessor._generator = None  # repeats the same parameters
        return count_operations(lambda: preprocessor(
            dict(inputs=views), training=True))

    count()  # the masks of the blur are computed once
    whole = count()
    monkeypatch.setattr(data_preprocessor, '_CPU_CHUNK_VALUES', 1)
    assert count() == whole > 50


@pytest.mark.parametrize('read', [
    lambda x: x.sum().item(), lambda x: x.nonzero(), lambda x: x[x > 0],
    lambda x: float(x[0]), lambda x: bool(x.any()), lambda x: x.unique()])
def test_counter_finds_the_place_of_a_host_read(load_part, read):
    x = torch.ones(3)
    counter = load_part('counters').count_step(lambda: read(x))
    place = f'test_tools/test_benchmarks.py:{read.__code__.co_firstlineno}'
    assert counter.reads == {place: 1}
    quiet = load_part('counters').count_step(
        lambda: torch.where(x > 0, x[[0, 2]].sum(), x.clone()))
    assert not quiet.reads and quiet.operations


def test_counter_prefers_our_line_to_inner_lines(load_part):
    counters, scope = load_part('counters'), {}
    ours = str(counters.OUR_FOLDER / 'planted.py')
    exec(compile('def call(f):\n    f()', ours, 'exec'), scope)
    counter = counters.count_step(
        lambda: scope['call'](lambda: torch.ones(1).item()))
    assert counter.reads == {'univip_mm/planted.py:2': 1}


def test_copies_to_the_cpu_are_reads_unless_async(load_part):
    reads = load_part('counters').reads_from_device
    far, near = torch.empty(2, device='meta'), torch.empty(2)
    copy, to = torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default
    cpu = torch.device('cpu')
    assert reads(copy, (near, far), {})
    assert reads(to, (far, ), dict(device=cpu))
    assert not reads(copy, (near, far, True), {})
    assert not reads(copy, (far, near), {})
    assert not reads(to, (far, ), dict(device=cpu, non_blocking=True))
    assert not reads(to, (near, ), dict(dtype=torch.float64))


def test_counter_splits_the_step_into_stages(load_part, build_small):
    step = build_small(load_part('rows').Row('univip', 'bf16'))
    weight = step.model.backbone.conv1.weight.detach().clone()
    target = step.model.target_net.module[0].conv1.weight
    for _ in range(2):
        counter = load_part('counters').count_step(step, step.stages())
    assert counter.operations.keys() == {
        *step.stages(), load_part('counters').OTHER_STAGE}
    assert min(counter.operations.values()) > 0
    # A step trains the network and moves the target.
    assert not torch.equal(step.model.backbone.conv1.weight, weight)
    assert not torch.equal(target, weight)


def test_batches_differ_and_have_seeds_of_the_loader(load_part):
    first, second = load_part('step').make_batches(2, 3, 2, 32, 16)
    assert [x.shape[-1] for x in first['inputs']] == [32, 32, 16, 16]
    assert not torch.equal(first['inputs'][0], second['inputs'][0])
    seeds = [sample.view_seed for batch in (first, second)
             for sample in batch['data_samples']]
    assert len(set(seeds)) == 6


@pytest.mark.parametrize('kind', ['bare', 'byol'])
def test_graph_rows_match_eager_rows(load_part, build_small, kind,
                                     monkeypatch):
    # On the CPU, a replay calls the function.
    monkeypatch.setattr(step_graph, 'check_mode', lambda mode: None)
    monkeypatch.setattr(torch.cuda, 'make_graphed_callables',
                        lambda function, *_, **__: function)
    Row = load_part('rows').Row
    losses = []
    for graph in (None, 'cuda_graph'):
        torch.manual_seed(0)
        step = build_small(Row(kind, None, graph))
        torch.manual_seed(1)  # the factors of the bare passes
        train_step = step.parallel.train_step
        losses.append([sum(
            x.item() for name, x in train_step(
                next(step.batches), step.optim_wrapper).items()
            if name == 'loss') for _ in range(3)])
    assert losses[0][0] == pytest.approx(losses[1][0], abs=1e-6)
    # The fused optimizer of the graph rounds differently.
    # Rounding grows from step to step, on some processors faster.
    assert losses[0][:2] == pytest.approx(losses[1][:2], abs=1e-2)
    assert losses[0][0] != losses[0][1] or kind == 'bare'


def test_bare_step_passes_both_branches_without_update(load_part,
                                                       build_small):
    step = build_small(load_part('rows').Row('bare'))
    model, before = step.model, dict(step.model.named_parameters())
    before = {name: x.detach().clone() for name, x in before.items()}
    for _ in range(2):
        step()
    for name, x in model.named_parameters():
        assert torch.equal(x, before[name])
        in_branch = name.startswith(('backbone', 'neck', 'head'))
        assert (x.grad is not None) == in_branch, name
    norm = model.target_net.module[0].bn1
    assert norm.num_batches_tracked == 6  # 3 passes in each step


def event(name, start, length, kind='kernel'):
    return dict(name=name, ts=start, dur=length, cat=kind)


def test_read_trace_counts_waits_and_busy_time(load_part):
    trace = load_part('trace')
    events = [
        event(trace.RANGE, 0, 1000, 'user_annotation'),
        event(trace.RANGE, 1000, 1000, 'user_annotation'),
        event(trace.RANGE, 0, 9000, 'gpu_user_annotation'),
        event('conv', 0, 400), event('other stream', 100, 400),
        event('nested', 50, 10),
        event('Memcpy HtoD', 1500, 100, 'gpu_memcpy'),
        *[event(name, 10, 1, 'cuda_runtime') for name in (
            'cudaLaunchKernel', 'cudaGraphLaunch', 'cudaMemcpyAsync',
            'cudaStreamSynchronize', 'cudaEventQuery')],
        event('cuLaunchKernelEx', 1010, 1, 'cuda_driver'),
        event('cudaDeviceSynchronize', 2500, 1, 'cuda_runtime'),
        event('aten::conv2d', 0, 50, 'cpu_op'),
        dict(name='process_name', ph='M')]
    assert trace.read_trace(events, steps=2) == dict(
        waits=0.5, launches=2, kernels=1.5, busy_ms=0.3)
    assert trace.read_trace(events[:3], steps=2) == {}  # no access to a GPU


@pytest.fixture
def sequence(load_part, monkeypatch):
    """Measure rows of fake steps one after the other; return the table."""
    table_part, rows_part = load_part('table'), load_part('rows')
    rows = [rows_part.Row('byol', 'amp'), rows_part.Row('bare'),
            rows_part.Row('bare', 'bf16', 'inductor')]
    monkeypatch.setattr(table_part, 'STEPS', 5)

    def measure(budget=100, build=lambda row: lambda: torch.ones(2) + 1,
                **known):
        table = {row.name: known.get(row.kind, {}) for row in rows}
        for _ in table_part.measure_in_sequence(rows, table, build, budget):
            yield table

    return measure


def test_rows_over_budget_are_reported(sequence):
    *_, table = sequence(budget=100)
    for name in ('byol amp', 'bare float32'):
        assert table[name]['ms'] > 0 and 'status' not in table[name]
    inductor = table['bare bf16 inductor']
    assert inductor['status'] == 'not measured: budget'
    assert inductor['estimate_s'] >= 130
    *_, table = sequence(budget=0)
    assert {x['status'] for x in table.values()} == {'not measured: budget'}


def test_estimate_uses_measured_rows_of_the_same_kind(load_part):
    table, Row = load_part('table'), load_part('rows').Row
    rows = [Row('univip'), Row('byol'), Row('univip', None, 'cuda_graph')]
    values = {rows[0].name: dict(ms=1, cost_s=7), rows[1].name: {},
              rows[2].name: dict(cost_s=1000, status='failed')}
    assert table.estimate_cost(rows[1], rows, values) == 7
    assert table.estimate_cost(
        rows[2], rows, values) == table.COSTS['cuda_graph']
    # The compiler's cache holds the backbones of the first row.
    rows = [Row(kind, 'bf16', 'inductor') for kind in ('univip', 'bare')]
    values = {rows[0].name: dict(ms=1, cost_s=100), rows[1].name: {}}
    assert table.estimate_cost(rows[1], rows, values) == 40


def test_failed_row_does_not_stop_the_other_rows(sequence):
    def build(row):
        if row.kind == 'byol':
            raise RuntimeError('out of memory\ndetails')
        return lambda: torch.ones(2)

    *_, table = sequence(build=build)
    assert table['byol amp']['status'] == 'failed: RuntimeError: out of memory'
    assert 'ms' in table['bare float32']


def test_known_row_is_not_measured_again(sequence):
    built = []

    def build(row):
        built.append(row.name)
        return lambda: torch.ones(2)

    *_, table = sequence(build=build, byol=dict(ms=5.0, cost_s=1.0))
    assert built == ['bare float32'] and table['byol amp']['ms'] == 5


def test_keep_rows_refuses_other_options(load_part):
    keep_rows = load_part('table').keep_rows
    run = dict(device='H100', batch_size=64, date='2026-01-02')
    earlier = dict(run=dict(run, date='2026-01-01'), rows=dict(
        a=dict(ms=1.0), b=dict(status='not measured: budget')))
    assert keep_rows(earlier, run, gpu=True) == dict(a=dict(ms=1.0))
    assert keep_rows({}, run, gpu=True) == {}
    with pytest.raises(ValueError, match='batch_size was 64 and is 8'):
        keep_rows(earlier, dict(run, batch_size=8), gpu=True)
    with pytest.raises(ValueError, match='--resume needs a GPU'):
        keep_rows(earlier, run, gpu=False)


def test_rows_in_turns_count_and_time_real_steps(load_part, build_small):
    table_part, rows = load_part('table'), load_part('rows').CPU_ROWS
    rows = [row for row in rows if row.precision is None]
    table = {row.name: {} for row in rows}
    states = [json.dumps(table) for _ in table_part.measure_in_turns(
        rows, table, build_small, 100)]
    assert len(set(states)) > len(rows)  # new values after each measurement
    for values in table.values():
        assert 0 < values['ms'] <= values['ms_median']
        assert values['operations'] > 0
    assert (sum(table['univip float32']['stages'].values())
            == table['univip float32']['operations']
            > table['bare float32']['operations'])
    table = {row.name: {} for row in rows}
    for _ in table_part.measure_in_turns(rows, table, build_small, 0):
        pass
    assert table['bare float32']['status'] == 'not measured: budget'


def test_comparisons_refer_to_the_right_rows(load_part):
    goals = load_part('goals')
    times = {'byol amp': 80, 'univip bf16': 100, 'univip float32': 150,
             'byol float32': 120, 'univip bf16 cuda_graph': 40,
             'bare bf16 cuda_graph': 32, 'univip bf16 inductor': 36,
             'bare bf16 inductor': 25}
    rows = {name: dict(ms=ms, GiB=ms / 10, operations=2950, waits=0.0)
            for name, ms in times.items()}
    rows['byol bf16 inductor'] = dict(status='not measured: budget')
    entries = goals.compare_rows(rows, True, 50)
    assert {name: x['value'] for name, x in entries.items()
            if name.startswith(('time', 'memory'))} == {
        'time, float32, univip / byol': 1.25,
        'time, fastest univip bf16 / byol amp': 0.45,
        'time, bf16 graph, univip / fastest bare arithmetic': 1.6,
        'time, bf16 graph, univip / bare arithmetic': 1.25,
        'time, bf16 inductor, univip / bare arithmetic': 1.44,
        'time, bf16 inductor, univip / byol': None,
        'memory, fastest univip bf16 / byol amp': 0.45}
    text = goals.format_table(dict(rows=rows, comparisons=entries))
    line = next(x for x in text.splitlines()
                if x.startswith('operations, univip float32'))
    assert line.endswith('2,950 (at most 2,900, not reached)')
    assert '2,950 (at most 3,000)' in text
    assert text.count('not measured: budget') == 1
    cpu = goals.compare_rows(rows, False, 18)
    assert cpu['time, float32, univip / byol'] == dict(
        value=1.25, goal=1.37, rows=['univip float32', 'byol float32'])
    assert cpu['operations, univip bf16']['goal'] is None


@pytest.fixture
def speed(load_part, monkeypatch):
    """Return the module of the script, without its global settings."""
    load_part('timing')
    module = importlib.import_module('speed')
    monkeypatch.setattr(module, 'init_default_scope', lambda name: None)
    monkeypatch.setattr(module.cv2, 'setNumThreads', lambda number: None)
    monkeypatch.setattr(torch.backends.cudnn, 'benchmark', False)
    return module


def test_interrupted_run_keeps_measured_rows(speed, monkeypatch, tmp_path):
    kept = []

    def measure(args, run, earlier):
        kept.append(earlier)
        yield dict(rows=dict(a=dict(ms=1.0)))
        yield dict(rows=dict(a=dict(ms=1.0), b=dict(ms=2.0)))
        raise KeyboardInterrupt

    monkeypatch.setattr(speed, 'measure_step', measure)
    monkeypatch.setattr(sys, 'argv', [
        'speed.py', '--parts', 'step', '--work-dir', str(tmp_path)])
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            speed.main()
        saved = json.loads((tmp_path / 'speed.json').read_text())
        assert saved['step']['rows']['b'] == dict(ms=2.0)
    assert kept == [{}, saved['step']]


def test_speed_help_shows_the_command_for_a_gpu(speed, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['speed.py', '-h'])
    with pytest.raises(SystemExit):
        speed.parse_args()
    text = capsys.readouterr().out
    assert '--parts step --batch-size 64 --resume' in text
