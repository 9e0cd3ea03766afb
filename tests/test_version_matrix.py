import json
import os
import stat
import sys

import pytest
from tiny import ROOT, error_of, load_tool, run_tool

from univip_mm.hosts.versions import reader_refusal

MATRIX = '../tests/version_matrix'
NAME = 'py311-torch2.6'
VERSIONS = dict(python='3.11.7', torch='2.6.0', numpy='2.2.6',
                opencv_contrib_python_headless='4.12.0.88', mmengine='0.10.7',
                mmpretrain='1.2.0', setuptools='80.9.0')
# Creates an environment whose Python is a script; all else does nothing.
FAKE_UV = '''#!/bin/sh
if [ "$1" = venv ]; then
    mkdir -p "$4/bin"
    cp "$FAKE_PYTHON" "$4/bin/python"
elif [ "$1" = build ]; then
    touch "$4/univip_mm.whl"
elif [ -n "$FAKE_ERROR" ]; then
    echo "$FAKE_ERROR"
    exit 1
fi
'''
# Answers the three calls of a row without importing anything.
FAKE_PYTHON = '''#!{python}
import json, os, sys
text = ' '.join(sys.argv[1:])
with open(os.path.dirname(__file__) + '/../calls.txt', 'a') as file:
    file.write(text.splitlines()[0] + '\\n' if text.strip() else '')
if '--junitxml=' in text:
    report = text.split('--junitxml=')[1].split()[0]
    with open(report, 'w') as file:
        file.write('<s><testcase/><testcase><skipped/></testcase>'
                   '<testcase classname="a" name="b"><failure/></testcase>'
                   '</s>')
elif 'metadata' in text:
    print(json.dumps(dict(python='3.11.7', torch='2.6.0')))
elif 'RESUMED' in text:
    assert not os.path.exists('univip_mm') and os.path.exists('tests')
    print('RESUMED other 0.5')
'''


@pytest.fixture
def fake_uv(tmp_path, monkeypatch):
    """Put a fake uv on the PATH that makes a fake environment."""
    folder = tmp_path / 'bin'
    folder.mkdir()
    for name, text in dict(
            uv=FAKE_UV, python=FAKE_PYTHON.format(python=sys.executable)
    ).items():
        (folder / name).write_text(text)
        (folder / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv('FAKE_PYTHON', str(folder / 'python'))
    monkeypatch.setenv('PATH', f'{folder}{os.pathsep}{os.environ["PATH"]}')
    return tmp_path / 'out'


@pytest.mark.parametrize('result, text', [
    (dict(passed=7, skipped=2, failed=[], resumed=[
        [NAME, '0.0'], ['py39-torch2.1', '0.1']]),
     '7 tests passed, 2 skipped; resumed 1 checkpoints of other rows |'),
    (dict(passed=7, skipped=0, failed=['a::b'], resumed=[]),
     '7 tests passed, 1 failed'),
    (dict(passed=7, skipped=0, failed=[], resumed=[], error='KeyError: 3'),
     '; the training failed: KeyError: 3 |'),
    (dict(passed=7, skipped=0, failed=[], resumed=[], not_resumed=['a']),
     '7 tests passed; refused to resume, as expected |'),
    (dict(refused='univip_mm needs x'), 'refused: univip_mm needs x |'),
    (dict(error='SyntaxError: y'), '| SyntaxError: y |'),
])
def test_version_matrix_prints_table(tmp_path, capsys, result, text):
    result.update(row=NAME, versions=VERSIONS)
    (tmp_path / f'{NAME}.json').write_text(json.dumps(result))
    run_tool(MATRIX, '--work-dir', tmp_path, '--table')
    head, _, line = capsys.readouterr().out.splitlines()
    assert head.count('|') == line.count('|')
    assert line.startswith('| 3.11.7 | 2.6.0 | 2.2.6 | 4.12.0.88 | 1.2.0 |')
    assert text in line


def test_version_matrix_requires_uv(tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path))
    message = error_of(MATRIX, '--work-dir', tmp_path / 'out')
    assert 'pip install uv' in message
    assert not (tmp_path / 'out').exists()


def test_version_matrix_runs_each_row_once(fake_uv, capsys):
    arguments = (MATRIX, '--work-dir', fake_uv, '--rows', NAME)
    run_tool(*arguments)
    text = '1 tests passed, 1 skipped, 1 failed; resumed 1 checkpoints'
    output = capsys.readouterr().out
    assert f'1/1 {NAME}' in output and output.count(text) == 2
    result = json.loads((fake_uv / f'{NAME}.json').read_text())
    assert result['failed'] == ['a::b']
    assert not (fake_uv / NAME).exists()  # the environment
    run_tool(*arguments)
    assert capsys.readouterr().out.count(text) == 1  # only in the table


def test_version_matrix_reports_failed_install(fake_uv, capsys, monkeypatch):
    monkeypatch.setenv('FAKE_ERROR', 'no such version')
    run_tool(MATRIX, '--work-dir', fake_uv, '--rows', NAME)
    assert 'cannot be installed: no such version' in capsys.readouterr().out
    assert 'no such version' in (fake_uv / f'{NAME}.log').read_text()


@pytest.mark.parametrize('row, reads', [
    ('py310-torch2.4', False), ('py311-torch2.6', True),
    ('py311-torch2.14', True)])
def test_version_matrix_knows_safe_reader(row, reads):
    matrix = load_tool(MATRIX)
    version = matrix.ROWS[row].torch
    assert matrix.reads_checkpoints(matrix.ROWS[row]) == reads
    assert bool(reader_refusal(version)) == (not reads)


def test_version_matrix_installs_unpinned_row_in_one_call(fake_uv, capsys):
    run_tool(MATRIX, '--work-dir', fake_uv, '--rows', 'py311-unpinned',
             '--keep')
    assert '1 tests passed' in capsys.readouterr().out
    calls = (fake_uv / 'py311-unpinned/env/calls.txt').read_text()
    line, = (x for x in calls.splitlines() if x.startswith('-m pip install'))
    assert line.startswith('-m pip install univip-mm[all] @ file:///')


def test_version_matrix_tests_exist():
    matrix = load_tool(MATRIX)
    for name in (*matrix.TESTS, *matrix.READER_TESTS):
        assert (ROOT / 'tests' / name).exists()
