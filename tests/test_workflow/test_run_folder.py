import pytest

from univip_mm.workflow.run_folder import (
    RunFolder,
    check_same_run,
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
