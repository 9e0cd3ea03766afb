import pytest

from univip_mm.utils.errors import one_line_errors
from univip_mm.utils.text import excerpt, printable


@pytest.mark.parametrize('text, expected', [
    ('café 猫.jpg', 'café 猫.jpg'), ('a\nb\tc', r'a\nb\tc'),
    ('\x1b[31mred', r'\x1b[31mred'), ('\udc80.jpg', r'\udc80.jpg'),
    ('\u202egpj.exe', r'\u202egpj.exe'), ('a\u2028b', r'a\u2028b')])
def test_printable_escapes_control_characters(text, expected):
    assert printable(text) == expected
    printable(text).encode()  # no lone surrogate is left


def test_one_line_errors_escapes_file_names():
    with pytest.raises(SystemExit, match=r"^error: no '\\x1b\[2Jx\\n'$"):
        with one_line_errors():
            raise ValueError("no '\x1b[2Jx\n'")


def test_excerpt_is_short_and_printable():
    assert excerpt(['a', 1]) == "['a', 1]"
    assert excerpt('\u202ea\n') == r"'\u202ea\n'"
    assert excerpt('x' * 100, 10) == "'xxxxxx..."
