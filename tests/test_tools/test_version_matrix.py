import json

import pytest
from tiny import error_of, run_tool

VERSIONS = dict(python='3.11.7', torch='2.6.0', numpy='2.2.6',
                opencv_contrib_python_headless='4.12.0.88', mmengine='0.10.7',
                mmpretrain='1.2.0', setuptools='80.9.0')


@pytest.mark.parametrize('result, said', [
    (dict(passed=7, skipped=2, failed=[], resumed=[
        ['py311-torch2.6', '0.0'], ['py39-torch2.1', '0.1']]),
     '7 tests passed, 2 skipped; resumed 1 checkpoints of other rows |'),
    (dict(passed=7, skipped=0, failed=['a::b'], resumed=[]),
     '7 tests passed, 1 failed'),
    (dict(passed=7, skipped=0, failed=[], resumed=[], error='KeyError: 3'),
     '; the training failed: KeyError: 3 |'),
    (dict(refused='univip_mm needs x'), 'refused: univip_mm needs x |'),
    (dict(error='SyntaxError: y'), '| SyntaxError: y |'),
])
def test_table_says_what_became_of_a_row(tmp_path, capsys, result, said):
    result.update(row='py311-torch2.6', versions=VERSIONS)
    (tmp_path / 'py311-torch2.6.json').write_text(json.dumps(result))
    run_tool('version_matrix', '--work-dir', tmp_path, '--table')
    head, _, line = capsys.readouterr().out.splitlines()
    assert head.count('|') == line.count('|')
    assert line.startswith('| 3.11.7 | 2.6.0 | 2.2.6 | 4.12.0.88 | 1.2.0 |')
    assert said in line


def test_without_uv_nothing_is_begun(tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path))
    message = error_of('version_matrix', '--work-dir', tmp_path / 'out')
    assert 'pip install uv' in message
    assert not (tmp_path / 'out').exists()
