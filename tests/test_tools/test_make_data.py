import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / 'tools/demo/make_data.py'


def test_make_data_prints_summary(tmp_path, monkeypatch, capsys):
    def call(*args):
        monkeypatch.setattr(
            sys, 'argv', [str(SCRIPT), str(tmp_path / 'demo'), *args])
        runpy.run_path(str(SCRIPT), run_name='__main__')
        return capsys.readouterr().out

    few = ('--num-train', '2', '--num-val', '1', '--workers', '1')
    output = call(*few)
    assert '3 images (2 train, 1 val)' in output and 'made in' in output
    assert 'mushroom' in output
    assert len(list((tmp_path / 'demo').rglob('*.jpg'))) == 3
    assert 'nothing to do' in call(*few)
    with pytest.raises(SystemExit, match=r'^error: size is \(9, 9\)'):
        call('--size', '9', '9')
