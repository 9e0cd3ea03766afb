import importlib.util
import json
import subprocess
import sys

import pytest
import torch
from tiny import ROOT, load_tool

from univip_mm.models import UniVIPDataPreprocessor, data_preprocessor

FOLDER = ROOT / 'tools' / 'benchmarks'


@pytest.fixture
def take_turns():
    spec = importlib.util.spec_from_file_location(
        'byol_pipeline', FOLDER / 'byol_pipeline.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.take_turns


def test_the_sides_of_a_comparison_take_turns(take_turns):
    called = []
    seconds = take_turns({
        name: [lambda n=name, i=i: called.append((n, i)) for i in range(3)]
        for name in 'ab'}, turns=2)
    once = [(name, i) for i in range(3) for name in 'ab']
    assert called == 3 * once  # one turn goes before
    assert seconds.keys() == {'a', 'b'} and min(seconds.values()) > 0


def test_figures_are_written_and_the_sides_compute_the_same(tmp_path):
    ended = subprocess.run(
        [sys.executable, FOLDER / 'speed.py', '--parts', 'sinkhorn',
         '--work-dir', tmp_path], capture_output=True, text=True, timeout=200)
    assert ended.returncode == 0, ended.stderr
    figures = json.loads((tmp_path / 'speed.json').read_text())
    assert figures['sinkhorn']['largest difference (at most 1e-5)'] < 1e-5
    assert 'ratio (at least 3)' in ended.stdout
    assert figures['run'].keys() >= {'machine', 'date', 'torch', 'device'}


def test_operations_are_counted_of_the_batch_in_one_piece(monkeypatch):
    speed = load_tool('benchmarks/speed')
    x = torch.ones(2, 3)
    # A view of x starts nothing, the sum and the product do.
    assert speed.operations(lambda: (x + x).view(6).t() * 2) == 2
    preprocessor = UniVIPDataPreprocessor(seed=0)
    views = [torch.zeros(4, 3, size, size, dtype=torch.uint8)
             for size in (16, 16, 8)]

    def counted():
        preprocessor._generator = None  # the same numbers
        return speed.operations(lambda: preprocessor(
            dict(inputs=views), training=True))

    whole = counted()
    monkeypatch.setattr(data_preprocessor, '_CACHED_VALUES', 1)
    assert counted() == whole > 50
