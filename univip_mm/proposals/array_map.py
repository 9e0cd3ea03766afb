"""Memory maps of the arrays in an uncompressed .npz, with checked extents."""
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

_HEADER_SIZE = 30  # bytes of a local header, before the name


def map_arrays(file: IO[bytes], names: Sequence[str]) -> dict:
    """Map the arrays of an uncompressed .npz that has just these members.

    The file is not executed or unpickled, and no memory is allocated for a
    declared size before the size is found in the file.

    Raises:
        ValueError: The file has other, several equal, compressed, pickled or
            truncated members.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            found = sorted(Path(x.filename).stem for x in members)
            if found != sorted(names):
                raise ValueError(f'its members are {found[:9]}, not '
                                 f'{sorted(names)}')
            return {Path(x.filename).stem: _map_array(file, x)
                    for x in members}
    except zipfile.BadZipFile:
        raise ValueError('the end of the file is missing, or it is no '
                         '.npz') from None
    except ValueError as e:
        raise ValueError(' '.join(str(e).split())[:200]) from None
    except Exception as e:  # zipfile and NumPy raise many types
        reason = ' '.join(f'{type(e).__name__}: {e}'.split())
        raise ValueError(reason[:200]) from None


def _map_array(file: IO[bytes], info: zipfile.ZipInfo) -> np.ndarray:
    name = info.filename
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f'{name} is compressed')
    # The last four bytes of the header are the lengths of the name and of
    # the extra field, which follow.
    file.seek(info.header_offset)
    header = file.read(_HEADER_SIZE)
    if len(header) != _HEADER_SIZE or header[:4] != b'PK\3\4':
        raise ValueError(f'{name} has no header')
    lengths = np.frombuffer(header[26:], dtype='<u2')
    start = info.header_offset + _HEADER_SIZE + int(lengths.sum())
    file.seek(start)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError(f'{name} has an unknown header')
    # np.savez writes version 1.0 of the header of all plain arrays.
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.hasobject or fortran_order:
        raise ValueError(f'{name} is not a plain array')
    content = dtype.itemsize * math.prod(shape)
    if min(shape, default=0) < 0 or (
            content != start + info.file_size - file.tell()):
        raise ValueError(f'{name} has {info.file_size} bytes, which do not '
                         f'fit its shape {shape}')
    if content == 0:  # a memory map cannot be empty
        return np.zeros(shape, dtype)
    # Raises ValueError if the map would end after the file.
    mapped = np.memmap(file, dtype, 'r', offset=file.tell(), shape=shape)
    # Indexing a plain view is ten times as fast as indexing a np.memmap.
    return mapped.view(np.ndarray)
