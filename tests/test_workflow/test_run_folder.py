import json

import pytest

from univip_mm.workflow.run_folder import (
    RunFolder,
    check_same_folder,
    check_same_run,
    digest_of_images,
    read_record,
    write_record,
)

REQUEST = dict(arch='resnet18', epochs='auto')


def test_read_record_refuses_other_folders(tmp_path):
    run = RunFolder(tmp_path / 'run')
    assert read_record(run) is None
    run.path.mkdir()
    (run.path / '.lock').touch()
    assert read_record(run) is None
    (run.path / 'thesis.tex').touch()
    with pytest.raises(ValueError, match='thesis.tex.*new or empty folder'):
        read_record(run)
    (run.path / 'thesis.tex').unlink()
    for text in ('{', '[]', '{"version": 99, "request": {}}'):
        run.record.write_text(text)
        with pytest.raises(ValueError, match='choose another --out'):
            read_record(run)


def test_read_record_returns_what_was_written(tmp_path):
    run = RunFolder(tmp_path)
    write_record(run, dict(request=REQUEST, version=0))
    assert read_record(run)['request'] == REQUEST


def test_check_same_run_names_the_changes(tmp_path):
    run = RunFolder(tmp_path)
    earlier = dict(request=REQUEST, images='a')
    longer, other = dict(REQUEST, epochs=9), dict(REQUEST, arch='resnet50')
    check_same_run(run, earlier, REQUEST, 'a', resume=False)
    with pytest.raises(ValueError, match='--epochs auto, now 9.*--resume'):
        check_same_run(run, earlier, longer, 'a', resume=False)
    with pytest.raises(ValueError, match='other images.*--resume'):
        check_same_run(run, earlier, REQUEST, 'b', resume=False)
    check_same_run(run, earlier, longer, 'b', resume=True)
    with pytest.raises(ValueError, match='resnet50: choose another --out'):
        check_same_run(run, earlier, other, 'a', resume=True)


def test_check_same_folder_refuses_other_images(tmp_path):
    run = RunFolder(tmp_path)
    image = dict(id=1, file_name='a.jpg', width=4, height=3)
    run.images.write_text(json.dumps(dict(images=[image])))
    earlier = dict(request=REQUEST, folder='/cards/1')
    check_same_folder(run, earlier, '/cards/1', [image], resume=False)
    with pytest.raises(ValueError, match='/cards/1.*now ./cards/2.*--resume'):
        check_same_folder(run, earlier, '/cards/2', [image], resume=False)
    check_same_folder(run, earlier, '/cards/2', [image], resume=True)
    with pytest.raises(ValueError, match='a.jpg. has another size'):
        check_same_folder(run, earlier, '/cards/2', [dict(image, width=5)],
                          resume=True)


def test_digest_of_images_ignores_order_and_ids():
    a, b = dict(id=1, file_name='a', width=4, height=3), dict(
        id=2, file_name='b')
    assert digest_of_images([a, b]) == digest_of_images([b, dict(a, id=9)])
    assert digest_of_images([a]) != digest_of_images([dict(a, width=5)])
