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
