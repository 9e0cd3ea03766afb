"""The report, also in a browser if there is one."""
import json
import re
import xml.etree.ElementTree as ElementTree
from base64 import b64decode

import numpy as np
import pytest
from browser import look_at, needs_browser
from PIL import Image
from test_visualization.test_run_files import CONFIG, LOG, write_run

from univip_mm.visualization.report import _duration, write_report
from univip_mm.visualization.report_pictures import Chart, draw_chart

SCRIPT = '<script>document.title="broken"</script>'
NAME = 'name<img src=x onerror=alert(1)>'


@pytest.fixture
def full_run(tmp_path):
    """Write a run with every optional file, and scripts in all names."""
    out = tmp_path / NAME.replace('/', '')
    folder = write_run(
        out, range(1, 400), 'checkpoints', CONFIG + f'# {SCRIPT}\n',
        LOG.replace('H100', f'H100{SCRIPT}'))
    (out / 'unreadable.txt').write_bytes(
        f'a{SCRIPT}.jpg\treason {SCRIPT}\n'.encode() +
        b'\xff.jpg\tr\xffe\x1b[0m\n')  # not UTF-8, a terminal command
    (out / 'run.json').write_text(json.dumps(dict(choices=[dict(
        name=f'batch {SCRIPT}', value='32 "><b>', reason='memory',
        option='--batch-size N ' + 120 * 'x')])))
    pictures = folder / 'vis_data' / 'vis_image'
    pictures.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (90, 160, 3), np.uint8)
    for path in (out / 'views.png', out / 'neighbours.png',
                 *(pictures / f'views_{i}.png' for i in range(1, 9))):
        Image.fromarray(noise).save(path)
    Image.fromarray(noise).resize((1800, 900)).save(out / 'views.png')
    (pictures / 'views_9.png').write_bytes(b'not a picture')
    return out


def test_report_is_one_file_without_scripts(full_run):
    path = write_report(full_run)
    text = path.read_text()
    assert path == full_run / 'report.html' and len(text) < 3e6
    assert '<script' not in text and '<img src=x' not in text
    assert '&lt;script&gt;' in text and "default-src 'none'" in text
    assert 'r\ufffde\\x1b[0m' in text
    for link in re.findall(r'(?:src|href|action)="([^"]*)"', text):
        assert link.startswith('data:')
    for alt in re.findall(r'<img [^>]*>', text):
        assert re.search('alt="[^"]+"', alt)
    for word in ('399 of 294', 'NVIDIA H100', '--batch-size N', 'Epoch 6'):
        assert word in text


@needs_browser
def test_report_fits_phone_and_desktop(full_run):
    narrow, wide = look_at(write_report(full_run), (390, 1280))
    for page in (narrow, wide):
        assert page['title'] == f'{full_run.name} – UniVIP, stopped'
        assert page['console'] == [] and page['requests'] == []
        assert page['overflow'] == 0
        assert len(page['images']) >= 11 and min(page['images']) > 0
        assert f'reason {SCRIPT}' in page['text']
        assert 'images per second\n128\n' in page['text']
    assert (narrow['width'], narrow['columns']) == (390, 1)
    assert (wide['width'], wide['columns']) == (1280, 2)


def test_running_report_reloads_itself(tmp_path):
    write_run(tmp_path)
    text = write_report(tmp_path, 'running').read_text()
    assert '<meta http-equiv="refresh" content="60">' in text
    assert re.search('time left</dt><dd>9 min', text)  # 265 of 2 s
    text = write_report(tmp_path, 'finished').read_text()
    assert 'refresh' not in text and 'time left' not in text


def test_report_without_any_log_line(tmp_path):
    (tmp_path / '20260101_000000' / 'vis_data').mkdir(parents=True)
    assert 'too early to say' in write_report(tmp_path).read_text()


def test_report_joins_resumed_logs_and_ranks(tmp_path):
    folder = write_run(tmp_path, range(1, 20))
    later = tmp_path / '20260102_000000' / 'vis_data'
    later.mkdir(parents=True)
    log = (folder / 'vis_data/scalars.json').read_text()
    last = json.loads(log.splitlines()[-1])
    later.joinpath('scalars.json').write_text(
        json.dumps(dict(rank_projection=17.25, rank_backbone=40., step=20))
        + '\n' + json.dumps({**last, 'step': 20, 'iter': 20}) + '\n')
    text = write_report(tmp_path).read_text()
    assert '20 of 294' in text and 'rank_projection</dt><dd>17.2' in text
    assert text.count('data:image/svg') == 7


def test_chart_is_valid_svg_with_text():
    log = [dict(step=i, a=i**0.5, b=float('nan')) for i in range(5000)]
    chart = Chart('title', 'help', dict(a='first', b='second', c='third'),
                  bound=3.)
    picture = draw_chart(log, chart)
    assert picture.alt == 'Curve over the iterations: first from 0 to 70.7'
    content = b64decode(picture.uri.partition(',')[2])
    assert len(content) < 30_000  # thousands of points are thinned out
    words = ''.join(ElementTree.fromstring(content).itertext())
    assert 'iteration' in words and '5k' in words
    assert draw_chart(log, chart._replace(names=dict(c='third'))) is None


@pytest.mark.parametrize('seconds, text', [
    (20, '20 s'), (89, '89 s'), (1200, '20 min'), (7260, '2 h 1 min'),
    (200_000, '2 d 7 h')])
def test_duration_is_readable(seconds, text):
    assert _duration(seconds) == text
