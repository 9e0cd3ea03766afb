import pytest

from univip_mm.io.unfinished import claim_folder, remove_files


def test_claim_accepts_new_and_own_folders(tmp_path):
    folder = tmp_path / 'a/x.parts'
    claim_folder(folder, 'lock', 'a test')
    (folder / '.lock.1234.part').touch()  # of a killed process
    claim_folder(folder, 'lock', 'a test')
    (folder / 'lock').touch()
    (folder / 'notes.txt').touch()
    claim_folder(folder, 'lock', 'a test')


@pytest.mark.parametrize('kind', ['file', 'link', 'other'])
def test_claim_refuses_what_is_of_the_user(tmp_path, kind):
    folder = tmp_path / 'x.parts'
    if kind == 'file':
        folder.touch()
    elif kind == 'link':
        folder.symlink_to(tmp_path)
    else:
        (folder / 'pictures').mkdir(parents=True)
    with pytest.raises(ValueError, match="x.parts' .*of a test") as e:
        claim_folder(folder, 'lock', 'a test')
    assert '\n' not in str(e.value)


def test_remove_keeps_other_files(tmp_path):
    folder = tmp_path / 'x.parts'
    for name in ('1.json', '2.json'):
        (folder / name).mkdir(parents=True)
        claim_folder(folder / name, 'lock', 'a test')
    (folder / '1.json').rmdir()
    (folder / '1.json').touch()
    (folder / 'lock').touch()
    remove_files(folder, ('*.json', 'lock'))
    assert [x.name for x in folder.iterdir()] == ['2.json']
    (folder / '2.json').rmdir()
    remove_files(folder, ('*.json', 'lock'))
    assert not folder.exists()
