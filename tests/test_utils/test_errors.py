import pytest

from univip_mm.utils.errors import one_line_errors


def test_one_line_errors_ends_with_the_message():
    with pytest.raises(SystemExit, match=r'^error: no such key$'):
        with one_line_errors():
            raise ValueError('no such key')


def test_one_line_errors_keeps_unexpected_types():
    with pytest.raises(KeyError), one_line_errors(types=(ValueError, )):
        raise KeyError('no such key')


def test_one_line_errors_reports_an_interruption(capsys):
    with pytest.raises(SystemExit) as stop, one_line_errors('no file yet'):
        raise KeyboardInterrupt
    assert stop.value.code == 130
    assert capsys.readouterr().err == '\nstopped; no file yet\n'


def test_one_line_errors_leaves_ctrl_c_to_python():
    with pytest.raises(KeyboardInterrupt), one_line_errors():
        raise KeyboardInterrupt
