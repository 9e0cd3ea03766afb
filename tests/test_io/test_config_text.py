import pytest
from mmengine.config import Config

from univip_mm.io.config_text import parse_config


def test_parse_config_reads_what_mmengine_writes():
    values = dict(
        a=[1, -2.5, (3, None)], b={'d e': dict(f=True), 7: 'g', (1, 2): []},
        c=dict(h=[dict(i='j\n"\'\x1b', k=())]), d='\udcff', e=1e300)
    assert parse_config(Config(values).pretty_text) == values


def test_parse_config_executes_nothing(tmp_path):
    target = tmp_path / 'executed'
    assert parse_config(f"a = open({str(target)!r}, 'w')\nb = dict(x=1)\n"
                        'c = dict(x=1, y=print("hi"))\nb.x = 2\n') == dict(
        a=None, b=dict(x=1), c=None)
    assert not target.exists()


@pytest.mark.parametrize('value', [
    '__import__("os").system("x")', 'dict(**{})', 'dict(1)', 'list()',
    '[x for x in "a"]', '{[]: 1}', '{{}}', '{**{}}', '{dict(): 1}', '[*a]',
    '-' * 5000 + '1', 'a', 'f"{a}"', '"a" * 10'])
def test_parse_config_leaves_out_other_values(value):
    found = parse_config(f'model = {value}')
    assert found in ({}, dict(model=None))


@pytest.mark.parametrize('text', [
    'not python =', '\0', '(' * 5000, 'a = ' + '[' * 90000])
def test_parse_config_takes_broken_text(text):
    assert parse_config(text) == {}
