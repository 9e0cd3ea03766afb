import numpy as np
import pytest

from univip_mm.downstream import embed_parts
from univip_mm.downstream.embed_parts import Parts


def test_parts_keep_files_of_others(tmp_path, monkeypatch):
    monkeypatch.setattr(embed_parts, 'PART', 1)
    folder = tmp_path / 'x.parts'
    folder.mkdir()
    # Killed in the first write.
    (folder / '.features.json.0123abcd.part').touch()
    features = np.ones((1, 3), np.float32)
    Parts(str(folder), dict(size=1), 2).add([0], features, [''])
    (folder / 'diary.txt').write_text('mine')
    assert Parts(str(folder), dict(size=1), 2).done == 1
    parts = Parts(str(folder), dict(size=2), 2)  # other settings
    assert parts.done == 0
    parts.add([0], features, [''])
    parts.remove()
    assert [x.name for x in folder.iterdir()] == ['diary.txt']
    # No folder of parts: of the user, or of an unfinished search.
    for name in ('diary.txt', 'settings.json'):
        (folder / name).write_text('{}')
        with pytest.raises(ValueError, match='other files than those of unf'):
            Parts(str(folder), dict(size=1), 2)
        assert (folder / name).read_text() == '{}'
        (folder / name).unlink()


def test_parts_read_one_part_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(embed_parts, 'PART', 4)
    parts = Parts(str(tmp_path / 'x.parts'), {}, 12)
    parts.add(range(4), np.zeros((0, 0), np.float32), 4 * ['bad'])
    for start in (4, 8):
        parts.add(range(start, start + 4),
                  np.full((3, 5), start, np.float32), ['', 'bad', '', ''])
    read = []
    load = np.lib.npyio.NpzFile.__getitem__
    monkeypatch.setattr(np.lib.npyio.NpzFile, '__getitem__',
                        lambda self, key: read.append(key) or load(self, key))
    assert parts.reasons() == 4 * ['bad'] + 2 * ['', 'bad', '', '']
    assert read == 3 * ['reasons']
    assert parts.channels() == 5 and read[3:] == 2 * ['features']
    assert [x[0, 0] for x in parts.features()] == [4, 8]
    assert read[5:] == 3 * ['features']


def test_parts_name_a_file_that_is_gone(tmp_path):
    parts = Parts(str(tmp_path / 'x.parts'), {}, 1)
    parts.add([0], np.ones((1, 3), np.float32), [''])
    (tmp_path / 'x.parts/000000.npz').write_bytes(b'damaged')
    for read in (parts.reasons, parts.channels):
        with pytest.raises(ValueError, match='000000.npz.*repeat the comm'):
            read()
    assert Parts(str(tmp_path / 'x.parts'), {}, 1).done == 0
