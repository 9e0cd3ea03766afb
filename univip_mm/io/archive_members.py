"""List of the files in a zip file or an uncompressed tar file."""
import errno
import posixpath
import stat
import struct
import tarfile
import zipfile
from typing import IO, NamedTuple

MAX = 1 << 62  # bytes; larger numbers are damage
_ENCRYPTED = 1  # flag of a zip member
_UTF8 = 1 << 11  # flag of a zip member
# Errors for damaged files. A wrong size can exceed the memory or an integer.
_ERRORS = (ValueError, OSError, EOFError, OverflowError, MemoryError,
           NotImplementedError, struct.error, zipfile.BadZipFile,
           tarfile.TarError)


class Member(NamedTuple):
    """File in an archive.

    Attributes:
        start (int): Position of the data, bytes; in a zip, position of the
            local header before the data.
        packed (int): Bytes in the archive.
        size (int): Bytes of the file.
        deflated (int): 1 if the data is deflated, else 0.
    """
    start: int
    packed: int
    size: int
    deflated: int


def zip_members(file: IO[bytes], path: str) -> tuple[dict[str, Member], str]:
    """List the files of a zip.

    Folders and symbolic links are left out. Of several files with the same
    name, the last is listed.

    Args:
        file (IO[bytes]): The open zip.
        path (str): Its path, for messages.

    Returns:
        tuple: Files by name, and a remark for the log, '' if there is none.
        The subject of the remark, which it lacks, is the path.

    Raises:
        ValueError: The zip is damaged or encrypted, or a file has another
            compression than deflate.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
    except _ERRORS as e:
        raise ValueError(f"'{path}' is damaged or cut short ({_text(e)}): "
                         'copy it again') from None
    members, links = {}, 0
    for info in infos:
        # zipfile cuts names at a zero byte; is_dir() fails for ''.
        name = info.filename and normal_name(_zip_name(info))
        if not name or info.is_dir():
            continue
        sizes = info.header_offset, info.compress_size, info.file_size
        if (stat.S_ISLNK(info.external_attr >> 16)
                or not 0 <= min(sizes) <= max(sizes) < MAX):
            links += 1
            continue
        if info.flag_bits & _ENCRYPTED or info.compress_type not in (
                zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            reason = ('encrypted' if info.flag_bits & _ENCRYPTED else
                      f'compressed with method {info.compress_type}')
            raise ValueError(
                f"'{info.filename}' of '{path}' is {reason}: make a zip with "
                'stored or deflated files')
        members[name] = Member(
            *sizes, int(info.compress_type == zipfile.ZIP_DEFLATED))
    return members, _remark_on_links(links)


def _zip_name(info: zipfile.ZipInfo) -> str:
    r"""Return a name as other programs unpack it.

    Some programs write UTF-8 without the flag for UTF-8, or ``a\b`` for
    ``a/b``.
    """
    name = info.filename.replace('\\', '/')
    if info.flag_bits & _UTF8 or name.isascii():
        return name
    try:
        return name.encode('cp437').decode()
    except UnicodeError:
        return name


def tar_members(file: IO[bytes], path: str) -> tuple[dict[str, Member], str]:
    """List the files of an uncompressed tar, and its hard links.

    Everything else is left out, such as symbolic links. A tar that is cut
    short has the files before the cut, and the remark reports the cut.

    Args, return values and errors are those of :func:`zip_members`.
    """
    members: dict[str, Member] = {}
    links, problem = 0, ''
    end = 0
    try:
        with tarfile.open(fileobj=file, mode='r:', encoding='utf-8',
                          errors='surrogateescape') as archive:
            while (found := archive.next()) is not None:
                # Otherwise, it keeps all members in memory.
                vars(archive)['members'] = []
                if archive.offset <= end:  # it would go round in circles
                    raise ValueError('negative size')
                end = archive.offset
                name = normal_name(found.name)
                target = normal_name(found.linkname)
                if not name:
                    continue
                if found.islnk() and target in members:
                    members[name] = members[target]
                elif (found.isreg() and found.sparse is None
                      and 0 <= found.size < MAX):
                    members[name] = Member(found.offset_data, found.size,
                                           found.size, 0)
                elif not found.isdir():
                    links += 1
            end = archive.offset
        file.seek(end)
    except _ERRORS as e:
        # EINVAL: a position that no file has. Another error can pass.
        if isinstance(e, OSError) and e.errno != errno.EINVAL:
            raise
        problem = _text(e)
    if not members and problem:
        raise ValueError(f"'{path}' is not an uncompressed tar file "
                         f'({problem}): gunzip it or copy it again')
    # An empty block ends a tar; tarfile stops at a damaged header too.
    if problem or file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        return members, (f'is damaged or cut short after {len(members)} '
                         'files: copy it again')
    return members, _remark_on_links(links)


def _remark_on_links(number: int) -> str:
    return '' if not number else (
        f'has {number} links or special files, which cannot be read: pack '
        'the images themselves')


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__  # MemoryError has no text


def normal_name(name: str) -> str:
    """Return a name without '.', '//' and a '/' at either end."""
    name = posixpath.normpath(name.lstrip('/'))
    return '' if name == '.' else name
