import tracemalloc
import zipfile

import numpy as np

from univip_mm.downstream.feature_file import write_features


def test_npz_has_sizes_that_all_pythons_count(tmp_path, monkeypatch):
    """Python 3.9.8 and 3.10.0 take ``len`` of a block as its bytes."""
    write = zipfile._ZipWriteFile.write

    def check(self, data):
        assert len(data) == memoryview(data).nbytes
        return write(self, data)

    monkeypatch.setattr(zipfile._ZipWriteFile, 'write', check)
    features = np.arange(12, dtype=np.float32).reshape(4, 3)
    write_features(str(tmp_path / 'x.npz'), list('abcd'), 3,
                   iter([features[:1], features[1:].T.copy().T]))
    with np.load(tmp_path / 'x.npz') as content:
        assert np.array_equal(content['features'], features)


def test_npz_of_a_long_name_needs_little_memory(tmp_path):
    names = [f'{number}\udcff.jpg' for number in range(5000)]
    names[3000] = 4000 * 'x'
    features = np.zeros((5000, 2), np.float32)
    tracemalloc.start()
    write_features(str(tmp_path / 'x.npz'), names, 2, [features])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6  # one array of the names has 80 MB
    with np.load(tmp_path / 'x.npz') as content:
        assert content['files'].tolist() == names
