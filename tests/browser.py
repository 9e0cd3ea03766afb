"""A real browser without a screen, to test pages."""
import functools
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import unquote

import pytest

PROGRAMS = ('chromium', 'chromium-browser', 'google-chrome')
# An empty profile, and nothing that the browser does on its own.
OPTIONS = ('--headless', '--no-sandbox', '--disable-gpu', '--disable-quic',
           '--no-first-run', '--disable-background-networking',
           '--disable-component-update', '--disable-sync',
           '--enable-logging=stderr', '--virtual-time-budget=20000')
# The page in frames of several widths. A frame's media queries use its width.
FRAMES = '''<!DOCTYPE html><meta charset="utf-8"><body><script>
const page = {page}, widths = {widths};
const frames = widths.map(width => {{
  const frame = document.createElement('iframe');
  frame.style = `width: ${{width}}px; height: 900px; border: 0`;
  frame.srcdoc = page;
  document.body.append(frame);
  return frame;
}});
addEventListener('load', () => {{
  const found = frames.map(frame => {{
    const page = frame.contentDocument, root = page.documentElement;
    page.querySelectorAll('details').forEach(x => x.open = true);
    return {{
      title: page.title,
      text: page.body.innerText,
      width: frame.contentWindow.innerWidth,
      overflow: root.scrollWidth - root.clientWidth,
      images: [...page.images].map(x => x.naturalWidth),
      columns: getComputedStyle(page.querySelector('.grid') || root)
        .gridTemplateColumns.split(' ').length,
      requests: frame.contentWindow.performance.getEntriesByType('resource')
        .map(x => x.name).filter(x => !x.startsWith('data:'))}};
  }});
  const result = document.createElement('pre');
  result.id = 'result';
  result.textContent = encodeURIComponent(JSON.stringify(found));
  document.body.append(result);
}});
</script>'''


@functools.lru_cache
def find_browser() -> str:
    """Return the path of a browser, or ''."""
    return next(filter(None, map(shutil.which, PROGRAMS)), '')


needs_browser = pytest.mark.skipif(
    not find_browser(), reason='no browser: apt-get install chromium')


def look_at(path, widths) -> list:
    """Return what a browser finds in a page, for each width in pixels."""
    # In a script, `</` would end it.
    page = json.dumps(Path(path).read_text()).replace('</', '<\\/')
    with tempfile.TemporaryDirectory() as folder:
        frames = Path(folder, 'frames.html')
        frames.write_text(FRAMES.format(page=page, widths=list(widths)))
        done = subprocess.run(
            [find_browser(), *OPTIONS, f'--user-data-dir={folder}/profile',
             '--dump-dom', frames.as_uri()], capture_output=True, text=True,
            timeout=120)
    found = re.search('<pre id="result">(.*?)</pre>', done.stdout)
    assert found, done.stderr[-2000:]
    results = json.loads(unquote(found[1]))
    messages = [x for x in done.stderr.splitlines() if 'CONSOLE' in x]
    return [{**result, 'console': messages} for result in results]
