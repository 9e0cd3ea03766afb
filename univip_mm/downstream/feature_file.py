"""Files of features: .npz, .csv and .parquet, written part by part."""
import csv
import zipfile
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import IO

import numpy as np

from ..io.atomic import atomic_write
from ..utils.text import printable
from .packages import import_package

SUFFIXES = ('.npz', '.csv', '.parquet')
_BLOCK = 2**22  # bytes of file names that are written at once
# Lines that read a file into `files` (N,) and `x` (N, C).
_READ = {
    '.npz': 'import numpy as np; data = np.load({path!r}); '
    "files, x = data['files'], data['features']",
    '.csv': 'import csv, numpy as np; rows = list(csv.reader(open({path!r})))'
    '[1:]; files = np.array([row[0] for row in rows]); '
    'x = np.array([row[1:] for row in rows], np.float32)',
    '.parquet': 'import numpy as np, pyarrow.parquet as pq; '
    "table = pq.read_table({path!r}); files = np.array(table['file']); "
    "x = np.array(table['features'].to_pylist(), np.float32)",
}
_NEAREST = (
    'x = x / np.linalg.norm(x, axis=1, keepdims=True); '
    'print(files[np.argsort(-x @ x[0])[:6]])  # first image, its neighbors')


def check_format(path: str) -> None:
    """Raise ValueError unless a file with this name can be written."""
    if not path.endswith(SUFFIXES):
        raise ValueError(f"'{printable(path)}' has no known format: let the "
                         f'name end in {", ".join(SUFFIXES)}')
    if path.endswith('.parquet'):
        import_package('pyarrow', 'a .parquet file')


def snippet(path: str) -> str:
    """Return Python that reads a file and prints nearest neighbors."""
    read = _READ[path[path.rindex('.'):]].format(path=path)
    return f'{read}\n{_NEAREST}'


def write_features(path: str, names: Sequence[str], channels: int,
                   parts: Iterable[np.ndarray]) -> None:
    r"""Write features atomically, with the memory of one part.

    - .npz: arrays ``features`` (N, C) float32 and ``files`` (N,).
    - .csv: a header and rows ``file,f0,f1,...``, with all digits.
    - .parquet: columns ``file`` and ``features``, lists of float32.

    In .csv and .parquet, which are UTF-8, other bytes of a file name are
    written as ``\udcff``.

    Args:
        path (str): The file.
        names (Sequence[str]): Names of the images, N of them.
        channels (int): C.
        parts (Iterable[np.ndarray]): Features (n, C), in the order of the
            names.
    """
    if path.endswith('.npz'):
        with atomic_write(path) as file:
            _write_npz(file, names, channels, parts)
    elif path.endswith('.csv'):
        with atomic_write(path, 'w') as file:
            _write_csv(file, names, channels, parts)
    else:
        with atomic_write(path) as file:
            _write_parquet(file, names, channels, parts)


def _write_npz(file: IO, names: Sequence[str], channels: int,
               parts: Iterable[np.ndarray]) -> None:
    # An array of all names has the width of the longest one.
    text = f'<U{max(map(len, names))}'
    step = max(1, _BLOCK // np.dtype(text).itemsize)
    blocks = (np.array(names[start:start + step], text)
              for start in range(0, len(names), step))
    with zipfile.ZipFile(file, 'w') as archive:
        _write_npy(archive, 'features', (len(names), channels), '<f4', parts)
        _write_npy(archive, 'files', (len(names), ), text, blocks)


def _write_npy(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...],
               dtype: str, blocks: Iterable[np.ndarray]) -> None:
    """Write an array into an .npz, block by block."""
    header = dict(descr=dtype, fortran_order=False, shape=shape)
    with archive.open(f'{name}.npy', 'w', force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, header)
        for block in blocks:
            # Python 3.9.8 and 3.10.0 count the rows of an array, not bytes.
            member.write(block.astype(dtype, copy=False).tobytes())


def _write_csv(file: IO, names: Sequence[str], channels: int,
               parts: Iterable[np.ndarray]) -> None:
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow(['file', *(f'f{x}' for x in range(channels))])
    rest = iter(names)
    for part in parts:
        # 9 digits are exact for float32.
        writer.writerows([_utf8(name), *(f'{x:.9g}' for x in row)]
                         for name, row in zip(islice(rest, len(part)),
                                              part.tolist()))


def _write_parquet(file: IO, names: Sequence[str], channels: int,
                   parts: Iterable[np.ndarray]) -> None:
    import pyarrow
    from pyarrow import parquet
    schema = pyarrow.schema([
        ('file', pyarrow.string()),
        ('features', pyarrow.list_(pyarrow.float32(), channels))])
    rest = iter(names)
    with parquet.ParquetWriter(file, schema) as writer:
        for part in parts:
            writer.write_table(pyarrow.table([
                [_utf8(name) for name in islice(rest, len(part))],
                pyarrow.FixedSizeListArray.from_arrays(
                    pyarrow.array(part.reshape(-1)), channels)], schema))


def _utf8(name: str) -> str:
    return name.encode('utf-8', 'backslashreplace').decode()
