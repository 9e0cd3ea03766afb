import importlib
import json
import subprocess
import sys

import pytest
import torch
from tiny import ROOT

from univip_mm.models import UniVIPDataPreprocessor, data_preprocessor

FOLDER = ROOT / 'tools' / 'benchmarks'


@pytest.fixture
def load_part(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return lambda name: importlib.import_module(f'speed_parts.{name}')


def test_time_interleaved_alternates_functions(load_part):
    calls = []
    seconds = load_part('timing').time_interleaved({
        name: [lambda n=name, i=i: calls.append((n, i)) for i in range(3)]
        for name in 'ab'}, repeats=2)
    once = [(name, i) for i in range(3) for name in 'ab']
    assert calls == 3 * once  # one warm-up
    assert seconds.keys() == {'a', 'b'} and min(seconds.values()) > 0


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
    count_operations = load_part('step').count_operations
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

    whole = count()
    monkeypatch.setattr(data_preprocessor, '_CPU_CHUNK_VALUES', 1)
    assert count() == whole > 50
