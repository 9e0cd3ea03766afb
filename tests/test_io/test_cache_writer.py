import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from image_bytes import encode, photograph
from test_pixel_cache import FILES, cache_of, pixels_of, write_files
from tiny import ROOT

from univip_mm.io import cache_journal, cache_writer, pixel_cache
from univip_mm.io.cache_journal import CacheJournal
from univip_mm.io.images import decode_image
from univip_mm.io.pixel_cache import Entry, PixelCache, Source

BYTES = 3 * 300 * 400  # of the pixels of a photograph


@pytest.fixture
def photographs(tmp_path):
    return write_files(tmp_path, {
        f'{i}.jpg': encode(quality=30 + i) for i in range(6)})


def check_content(root, cache, but=()):
    """Compare a cache with the files."""
    images = json.loads((root / 'list.json').read_text())['images']
    for image in images:
        pixels = pixels_of(cache, image['id'])
        if image['file_name'] in but:
            assert pixels is None
            continue
        data = (root / 'images' / image['file_name']).read_bytes()
        assert np.array_equal(pixels, decode_image(data))
    assert len(cache) == len(images) - len(but)
    assert not (root / 'out.pixels.parts').exists()


def test_killed_tool_resumes_to_equal_content(tmp_path):
    large = encode(image=photograph(1500, 2000))
    root = write_files(tmp_path, {f'{i}.jpg': large for i in range(24)})
    out = root / 'out.pixels'
    command = [sys.executable, ROOT / 'tools/cache_pixels.py', '--ann-file',
               root / 'list.json', '--img-prefix', root / 'images', '--out',
               out, '--workers', '2']
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    journal = root / 'out.pixels.parts/journal'
    while not (journal.exists() and journal.read_text().count('image') > 3):
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = journal.read_text().count('image')
    assert not out.exists()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f'; {before} were decoded before' in done.stdout
    assert f'decoded {24 - before} images' in done.stdout
    check_content(root, PixelCache(out))


def test_finished_cache_is_only_updated(photographs, monkeypatch):
    cache, _ = cache_of(photographs)
    before = os.stat(cache.path)
    cache_of(photographs)
    assert os.stat(cache.path) == before
    assert len(cache) == 6  # it is open
    for path in (photographs / 'images').iterdir():
        os.utime(path, (1, 1))  # as after a copy; the content decides
    again, outcome = cache_of(photographs)
    assert outcome[:4] == (0, 0, 0, 6)
    assert os.stat(cache.path).st_ino == before.st_ino
    again.check()
    check_content(photographs, again)
    assert cache.has_changed()
    check_content(photographs, cache)  # its map is still valid
    # The content is not read again.
    monkeypatch.setattr(pixel_cache, 'read_bytes', None)
    assert all(pixel_cache.is_source_of(
        again.entry(i), photographs / 'images' / again.entry(i).name)
        for i in again.ids.tolist())


def test_update_that_is_killed_keeps_the_cache(photographs, monkeypatch):
    cache, _ = cache_of(photographs)
    entries = [cache.entry(i) for i in cache.ids.tolist()]
    with monkeypatch.context() as patch, open(cache.path, 'rb+') as file:
        patch.setattr(pixel_cache, '_crc', lambda data: 1 / 0)
        with pytest.raises(ZeroDivisionError):  # before the header
            pixel_cache.write_index(file, entries)
    cache = PixelCache(cache.path)
    cache.check()
    check_content(photographs, cache)


def test_folder_of_the_user_is_neither_used_nor_removed(photographs):
    folder = photographs / 'out.pixels.parts'
    folder.mkdir()
    (folder / 'journal').write_text('my diary')
    with pytest.raises(ValueError, match='out.pixels.parts.*move that folder'):
        cache_of(photographs)
    assert (folder / 'journal').read_text() == 'my diary'
    (folder / 'journal').unlink()
    journal = CacheJournal(photographs / 'out.pixels')
    (folder / 'notes').mkdir()
    journal.remove()
    assert os.listdir(folder) == ['notes']


@pytest.mark.parametrize('max_bytes', [None, 3 * BYTES + 200])
def test_interrupted_pixels_that_are_not_wanted_are_removed(
        photographs, monkeypatch, max_bytes):
    with monkeypatch.context() as patch:
        patch.setattr(cache_writer, 'write_index', lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            cache_of(photographs)
    content = json.loads((photographs / 'list.json').read_text())
    del content['images'][0], content['images'][2]
    (photographs / 'list.json').write_text(json.dumps(content))
    cache, outcome = cache_of(photographs, max_bytes=max_bytes)
    number = 4 if max_bytes is None else 3
    assert outcome[:5] == (0, 0, number, number, 6 - number)
    assert os.path.getsize(cache.path) < number * (BYTES + 300) + 64
    for entry in map(cache.entry, cache.ids.tolist()):
        data = (photographs / 'images' / entry.name).read_bytes()
        assert np.array_equal(cache.pixels(entry), decode_image(data))


def test_killed_compaction_loses_only_moved_images(photographs):
    journal = CacheJournal(photographs / 'out.pixels')
    journal.start()
    journal.pixels.write_bytes(bytes(64) + b'a' * 64 + b'b' * 64 + b'c' * 64)
    entries = [Entry(i, f'{i}', 64 * i, 4, 4, Source(5, 6, 'ab' * 16))
               for i in (1, 3)]
    sync, calls = journal.sync, []

    def kill_at_second():
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        sync()

    journal.sync = kill_at_second
    with pytest.raises(KeyboardInterrupt):
        journal.compact(entries)
    journal.close()
    assert journal.pixels.read_bytes() == (
        bytes(64) + b'a' * 64 + b'c' * 48)
    os.truncate(journal.pixels, 170)  # what the kill did not reach
    again = CacheJournal(photographs / 'out.pixels')
    assert again.start() == entries[:1]
    again.close()


def test_smaller_limit_drops_and_counts_images(photographs):
    cache_of(photographs)
    cache, outcome = cache_of(photographs, max_bytes=3 * BYTES + 200)
    assert outcome[:5] == (0, 3, 0, 3, 3)
    assert os.path.getsize(cache.path) < 3 * (BYTES + 300) + 64
    _, outcome = cache_of(photographs, max_bytes=3 * BYTES + 200)
    assert outcome[:5] == (0, 0, 0, 3, 0)


def test_cache_with_unused_space_is_made_again(photographs):
    cache, _ = cache_of(photographs)
    entries = [cache.entry(i) for i in cache.ids.tolist()[:4]]
    with open(cache.path, 'rb+') as file:  # as an earlier version left it
        pixel_cache.write_index(file, entries)
    content = json.loads((photographs / 'list.json').read_text())
    content['images'] = content['images'][2:]
    (photographs / 'list.json').write_text(json.dumps(content))
    _, outcome = cache_of(photographs)
    assert outcome[:4] == (0, 4, 0, 4)
    assert os.path.getsize(cache.path) < 4 * (BYTES + 300) + 64


def test_only_new_and_changed_images_are_decoded(photographs):
    cache_of(photographs)
    files = photographs / 'images'
    (files / '1.jpg').write_bytes(encode(image=photograph(90, 120)))
    (files / 'new.jpg').write_bytes(encode(image=photograph(91, 121)))
    content = json.loads((photographs / 'list.json').read_text())
    content['images'][2] = dict(id=7, file_name='new.jpg')
    (photographs / 'list.json').write_text(json.dumps(content))
    cache, outcome = cache_of(photographs)
    assert (outcome.decoded, outcome.copied) == (2, 4)
    check_content(photographs, cache)


def test_damaged_cache_is_made_again(photographs):
    cache_of(photographs)
    os.truncate(photographs / 'out.pixels', 5000)
    cache, outcome = cache_of(photographs)
    assert outcome.decoded == 6
    check_content(photographs, cache)


def test_max_bytes_keeps_the_first_images(photographs):
    cache, _ = cache_of(photographs, max_bytes=3 * BYTES + 200)
    assert cache.ids.tolist() == [98, 99, 100]
    cache, outcome = cache_of(photographs, max_bytes=3 * BYTES + 200)
    assert outcome.decoded == 0
    with pytest.raises(ValueError, match='less than the pixels of'):
        cache_of(photographs, max_bytes=100)


def test_sizes_in_json_cannot_exceed_the_limit(photographs):
    content = json.loads((photographs / 'list.json').read_text())
    content['images'][0].update(width=40, height=30)
    (photographs / 'list.json').write_text(json.dumps(content))
    cache, outcome = cache_of(photographs, max_bytes=2 * BYTES)
    assert cache.ids.tolist() == [99]
    assert 'its json' in outcome.unreadable['0.jpg']


def test_unreadable_images_are_named_and_tried_again(photographs):
    files = photographs / 'images'
    good = (files / '2.jpg').read_bytes()
    (files / '2.jpg').write_bytes(good[:2000])
    (files / '4.jpg').unlink()
    for _ in range(2):
        cache, outcome = cache_of(photographs)
        assert set(outcome.unreadable) == {'2.jpg', '4.jpg'}
        assert 'the file is missing' in outcome.unreadable['4.jpg']
        assert 'ends before' in outcome.unreadable['2.jpg']
    (files / '2.jpg').write_bytes(good)
    cache, outcome = cache_of(photographs)
    assert (outcome.decoded, outcome.copied) == (1, 4)
    assert pixels_of(cache, 98) is not None


def test_no_readable_image_is_an_error(photographs):
    shutil.rmtree(photographs / 'images')
    with pytest.raises(ValueError, match='none of the 6 images'):
        cache_of(photographs)
    assert not (photographs / 'out.pixels').exists()


def test_second_process_is_refused(photographs):
    journal = CacheJournal(photographs / 'out.pixels')
    with pytest.raises(ValueError, match='another process'):
        cache_of(photographs)
    journal.close()
    cache_of(photographs)


def test_other_file_is_not_replaced(photographs):
    (photographs / 'out.pixels').write_text('precious')
    with pytest.raises(ValueError, match='not a pixel cache'):
        cache_of(photographs)
    assert (photographs / 'out.pixels').read_text() == 'precious'


def test_full_disk_is_reported_before_the_work(photographs, monkeypatch):
    monkeypatch.setattr(shutil, 'disk_usage',
                        lambda _: SimpleNamespace(free=10**6))
    with pytest.raises(ValueError, match='1.0 MB free.*max-gb'):
        cache_of(photographs)


def test_disk_that_fills_up_keeps_the_finished_images(photographs,
                                                     monkeypatch):
    write, calls = os.pwrite, []

    def write_twice(*args):
        calls.append(args)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, 'No space left on device')
        return write(*args)

    monkeypatch.setattr(os, 'pwrite', write_twice)
    with pytest.raises(OSError, match='No space left.*to resume'):
        cache_of(photographs)
    monkeypatch.undo()
    cache, outcome = cache_of(photographs)
    assert (outcome.decoded, outcome.found_before) == (4, 2)
    check_content(photographs, cache)


def finished(number):
    return Entry(number, f'{number}.jpg', 64 * number, 2, 3,
                 Source(5, 6, 'ab' * 16))


@pytest.mark.parametrize('boot_id, kept', [('first', [1, 2]), ('', [1]),
                                           ('second', [1])])
def test_power_failure_costs_lines_after_the_sync(tmp_path, monkeypatch,
                                                  boot_id, kept):
    monkeypatch.setattr(cache_journal, '_boot_id', lambda: 'first')
    journal = CacheJournal(tmp_path / 'out')
    assert journal.start() == []
    journal.pixels.write_bytes(bytes(1000))
    journal.write(finished(1))
    journal.sync()
    journal.write(finished(2))
    journal.close()
    with open(journal.folder / 'journal', 'a') as file:
        file.write('["image",3,"cut')
    for _ in range(2):  # also a start later, without any work between
        monkeypatch.setattr(cache_journal, '_boot_id', lambda: boot_id)
        again = CacheJournal(tmp_path / 'out')
        assert again.start() == [finished(i) for i in kept]
        again.close()
    os.truncate(again.pixels, finished(2).end - 1)
    again = CacheJournal(tmp_path / 'out')
    assert again.start() == [finished(1)]
    again.close()


def test_all_formats_survive_a_copy_to_a_new_cache(tmp_path):
    root = write_files(tmp_path, FILES)
    cache_of(root)
    os.remove(root / 'images/a.jpg')
    cache, outcome = cache_of(root)
    assert outcome.copied == len(FILES) - 1
    assert pixels_of(cache, 100) is None
    for i, data in list(enumerate(FILES.values()))[1:]:
        assert np.array_equal(pixels_of(cache, 100 - i), decode_image(data))
