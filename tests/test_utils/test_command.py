import io
import os
import subprocess
import sys

import pytest
from tiny import ROOT
from visual_files import write_log

import univip_command
from univip_mm.utils import command
from univip_mm.utils.command import COMMANDS, TOOLS, make_parser, run


def test_commands_have_tools():
    for tool, _ in COMMANDS.values():
        assert (TOOLS / f'{tool}.py').is_file()


@pytest.mark.parametrize('words', [['-h'], ['--version'], []])
def test_run_describes_itself(words, capsys):
    with pytest.raises(SystemExit) as e:
        run(words)
    assert e.value.code in (None, 0 if words else 2)
    assert 'univip' in capsys.readouterr().out


def test_run_reports_unknown_command():
    with pytest.raises(SystemExit, match="did you mean 'pretrain'"):
        run(['pretain'])


def test_run_starts_the_tool(monkeypatch):
    started = []
    monkeypatch.setattr(os, 'execve', lambda *args: started.append(args))
    monkeypatch.delenv('UNIVIP_HOST', raising=False)
    monkeypatch.setattr(sys, 'argv', ['univip', 'plot', 'a b', '--out', 'x'])
    univip_command.main()
    (python, words, env), = started
    assert words == [python, str(TOOLS / 'plot_losses.py'), 'a b', '--out',
                     'x']
    assert env['UNIVIP_COMMAND'] == 'plot'
    assert 'UNIVIP_HOST' not in env
    assert env['PYTHONPATH'].split(os.pathsep)[0] == str(ROOT)


def test_make_parser_names_the_command(monkeypatch):
    examples = 'examples:\n  python tools/plot_losses.py DIR'
    assert 'tools/plot_losses.py DIR' in make_parser('', examples).epilog
    monkeypatch.setenv(command.VARIABLE, 'plot')
    parser = make_parser('', examples)
    assert parser.prog == 'univip plot'
    assert parser.epilog == 'examples:\n  univip plot DIR'


def test_make_parser_lets_stdout_take_all_names(monkeypatch):
    stdout = io.TextIOWrapper(io.BytesIO(), 'ascii')
    monkeypatch.setattr(sys, 'stdout', stdout)
    make_parser('')
    print('\u0416\udcff', flush=True)
    assert stdout.buffer.getvalue() == b'\\u0416\\udcff\n'
    monkeypatch.setattr(sys, 'stdout', io.StringIO())  # of a notebook
    make_parser('')


def test_tool_prints_names_on_an_ascii_terminal(tmp_path):
    folder = tmp_path / os.fsdecode(b'\xd0\x96\xff')
    write_log(folder, '20260101_000000', range(9))
    done = subprocess.run(
        [sys.executable, ROOT / 'tools/plot_losses.py', folder],
        env=dict(os.environ, PYTHONPATH=str(ROOT), PYTHONIOENCODING='ascii',
                 UNIVIP_HOST='none'),
        capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '\\u0416\\udcff/losses.png' in done.stdout


def test_command_needs_no_torch():
    done = subprocess.run(
        [sys.executable, '-c', 'import sys, univip_command\n'
         'sys.argv = ["univip", "--version"]\n'
         'try: univip_command.main()\n'
         'finally: assert "torch" not in sys.modules'],
        cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith('univip_mm ')
