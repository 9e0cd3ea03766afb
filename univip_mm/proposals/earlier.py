"""Results of earlier searches that can be used again.

A result belongs to an image id and a file name. The proposal file has only
checksums of base names, which are equal in many folders. ``OUT.searched.json``
therefore lists the ids and file names of the proposal file. The digest of the
list in the proposal file shows whether they belong together.
"""
import json
import os
from collections.abc import Sequence
from pathlib import Path

from ..io.atomic import PathLike, atomic_write
from ..io.coco_json import digest_of
from ..io.files import read_json
from ..utils.errors import warn
from ..utils.text import excerpt
from .journal import LIST, Journal, journal_folder
from .proposal_file import ProposalFile, check_path
from .search import Found


def path_of_list(out: PathLike) -> Path:
    """Return the path of the list of a folder's images, beside ``out``."""
    return check_path(out).with_suffix('.images.json')


def path_of_searched(out: PathLike) -> Path:
    """Return the path of the list of the images in the file ``out``."""
    return Path(out).with_suffix('.searched.json')


def write_list(path: PathLike, images: Sequence[dict],
               folder: PathLike) -> None:
    """Write the ids and file names of images, and their folder, to a json."""
    names = [dict(id=x['id'], file_name=x['file_name']) for x in images]
    with atomic_write(path, 'w') as file:
        json.dump(dict(folder=os.path.realpath(folder), images=names), file)


def read_list(path: PathLike) -> list[dict]:
    """Read the images of a json, or return [] if it is missing or damaged."""
    try:
        images = read_json(path)['images']
        valid = all(type(x['id']) is int and isinstance(x['file_name'], str)
                    for x in images)
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return images if valid else []


def keep_ids(images: Sequence[dict], out: PathLike) -> list[dict]:
    """Give the images of a folder the ids that they had in earlier lists.

    New file names get new ids, so that a result of an earlier search keeps
    its id when files are added or removed. ``out`` is the proposal file.
    """
    ids: dict[str, int] = {}
    used = set()
    for path in (path_of_list(out), path_of_searched(out),
                 journal_folder(out) / LIST):
        for image in read_list(path):
            name, image_id = image['file_name'], image['id']
            if name not in ids and image_id not in used:
                ids[name] = image_id
                used.add(image_id)
    new = max(used, default=0)
    numbered = []
    for image in images:
        image_id = ids.get(image['file_name'])
        if image_id is None:
            image_id = new = new + 1
        numbered.append({**image, 'id': image_id})
    return numbered


def warn_of_other_folder(out: PathLike, folder: PathLike) -> None:
    """Warn if an earlier search read the images of another folder.

    The images may have moved, but two cameras also use the same file names.
    """
    folders = set()
    for path in (path_of_searched(out), journal_folder(out) / LIST):
        try:
            folders.add(str(read_json(path)['folder']))
        except (OSError, ValueError, KeyError, TypeError):
            pass
    for earlier in sorted(folders - {os.path.realpath(folder)}):
        warn(f"'{out}' has results of images below '{earlier}', which count "
             f"for images of the same id and name below '{folder}': if these "
             'are other images, stop, and choose another --out')


def earlier_results(images: Sequence[dict], out: Path, settings: dict,
                    journal: Journal) -> dict[int, Found]:
    """Return the results of the images that need no search, by image id.

    They come from the proposal file ``out`` and from the journal of an
    unfinished search. Unreadable images are left out. A warning gives the
    reason if the proposal file cannot be used.
    """
    names = {image['id']: image['file_name'] for image in images}
    results = _read_proposals(images, names, out, settings)
    for image_id, found in journal.read(names):
        if found.problem is None:
            results[image_id] = found
    return results


def _read_proposals(images: Sequence[dict], names: dict, out: Path,
                    settings: dict) -> dict[int, Found]:
    try:
        file = ProposalFile(out)
    except FileNotFoundError:
        return {}
    except ValueError as e:
        warn(f'{e}; all its images are searched again')
        return {}
    for name, value in json.loads(json.dumps(settings)).items():
        if file.meta.get(name) != value:
            warn(f"'{out}' was made with {name} "
                 f'{excerpt(file.meta.get(name))}, now {excerpt(value)}: all '
                 'its images are searched again, and the file is replaced')
            return {}
    covered = _names_in(file, images, out)
    if not covered:
        warn(f"no list has the file names of '{out}' "
             f"('{path_of_searched(out)}' is missing or of another search): "
             'all its images are searched again')
    unreadable = set(file.meta.get('unreadable', []))
    reduced = set(file.meta.get('reduced', []))
    return {i: Found(boxes, None, i in reduced) for i, boxes in file.items()
            if i not in unreadable and i in names
            and covered.get(i) == names[i]}


def _names_in(file: ProposalFile, images: Sequence[dict],
              out: Path) -> dict[int, str]:
    """Return the file names of a proposal file by id, {} if unknown."""
    digest = file.meta.get('image_list')
    if digest == digest_of(images):
        return {x['id']: x['file_name'] for x in images}
    # The journal has the list if a search was killed after it wrote ``out``.
    # Earlier versions of this package wrote only the list of a folder.
    for path in (path_of_searched(out), journal_folder(out) / LIST,
                 path_of_list(out)):
        found = read_list(path)
        if found and digest == digest_of(found):
            return {x['id']: x['file_name'] for x in found}
    return {}
