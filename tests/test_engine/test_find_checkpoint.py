"""Choice of the checkpoint to resume."""
import os

import pytest
import torch
from mmengine.config import Config

from univip_mm.engine.checkpoint import find_checkpoint, latest_checkpoint


class Forbidden:
    """Object that PyTorch's reader refuses."""

    def __reduce__(self):
        return os.system, ('true', )


def content(iteration, **more):
    """Return the parts of a checkpoint that a resume needs."""
    return dict(
        state_dict=dict(a=torch.zeros(1000)),
        meta=dict(epoch=1, iter=iteration),
        message_hub=dict(log_scalars={}, runtime_info={}, resumed_keys={}),
        **more)


@pytest.fixture
def save(tmp_path):
    """Return a function that writes a checkpoint of a given age."""

    def save(name, iteration, seconds=0, **more):
        path = tmp_path / name
        torch.save(content(iteration, **more), path)
        os.utime(path, (1e9 + seconds, 1e9 + seconds))
        return str(path)

    return save


@pytest.fixture
def lines(monkeypatch):
    """Return the lines that the search for a checkpoint logs."""
    lines = []
    monkeypatch.setattr('univip_mm.engine.checkpoint.print_log',
                        lambda text, **options: lines.append(text))
    return lines


def resume(folder):
    """Return the checkpoint that ``--resume`` uses."""
    cfg = Config(dict(resume=True, work_dir=str(folder)))
    find_checkpoint(cfg)
    return cfg.load_from


def test_resume_uses_most_iterations(tmp_path, save, lines):
    save('epoch_3.pth', 8, seconds=9)
    latest = save('preempted.pth', 11)
    save('epoch_2.pth', 10, seconds=99)
    assert resume(tmp_path) == latest and not lines


def test_resume_uses_newest_of_equal_iterations(tmp_path, save):
    save('a.pth', 8)
    newest = save('b.pth', 8, seconds=2)
    save('c.pth', 8, seconds=1)
    assert resume(tmp_path) == newest


def test_resume_reports_other_last_checkpoint(tmp_path, save, lines):
    older, newer = save('epoch_1.pth', 4), save('epoch_2.pth', 8)
    (tmp_path / 'last_checkpoint').write_text(older)
    assert resume(tmp_path) == newer
    line, = lines
    assert (f"resuming from '{newer}' (iteration 8); last_checkpoint names "
            f"another file, '{older}' (iteration 4)") == line


def test_resume_uses_named_file_elsewhere(tmp_path, save, lines):
    (tmp_path / 'out').mkdir()
    named = save('epoch_9.pth', 9)
    (tmp_path / 'out/last_checkpoint').write_text(named + '\n')
    assert resume(tmp_path / 'out') == named and not lines


def test_resume_is_unset_without_a_checkpoint(tmp_path):
    # Else MMEngine would resume from the file in last_checkpoint.
    torch.save(dict(state_dict={}), tmp_path / 'backbone.pth')
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'backbone.pth'))
    cfg = Config(dict(resume=True, work_dir=str(tmp_path)))
    find_checkpoint(cfg)
    assert cfg.load_from is None and cfg.resume is False


def test_find_checkpoint_reports_on_rank_0_only(
        tmp_path, save, lines, monkeypatch):
    save('epoch_1.pth', 4)
    (tmp_path / 'epoch_2.pth').symlink_to(tmp_path / 'gone.pth')
    monkeypatch.setenv('RANK', '1')
    resume(tmp_path)
    assert not lines
    monkeypatch.setenv('RANK', '0')
    resume(tmp_path)
    assert len(lines) == 1


def test_resume_names_skipped_files(tmp_path, save, lines):
    used = save('epoch_1.pth', 4)
    os.truncate(save('epoch_2.pth', 8), 3000)
    save('epoch_3.pth', 12, optimizer=Forbidden())
    (tmp_path / 'epoch_4.pth').symlink_to(tmp_path / 'gone.pth')
    torch.save(dict(state_dict={}), tmp_path / 'backbone.pth')
    os.mkfifo(tmp_path / 'pipe.pth')
    (tmp_path / 'last_checkpoint').write_text('/nowhere/a\x1b\nb.pth')
    assert resume(tmp_path) == used
    line, = lines
    for words in ("epoch_2.pth' (the end of the file is missing)",
                  "epoch_3.pth' (Trying to load unsupported GLOBAL "
                  'posix.system', "epoch_4.pth' (a link to a missing file)",
                  "backbone.pth' (not a training checkpoint, meta is missing",
                  "pipe.pth' (not a file)",
                  r"'/nowhere/a\x1b\nb.pth' (missing)"):
        assert words in line
    assert line.isprintable()


@pytest.mark.parametrize('value', [
    True, '8', -1, 8.0, None, 10**30, [8]])
def test_resume_skips_wrong_iterations(tmp_path, save, value):
    save('b.pth', value)
    assert latest_checkpoint(str(tmp_path))[0] is None
    used = save('a.pth', 0)
    path, (skipped, ) = latest_checkpoint(str(tmp_path))
    assert path == used and 'meta.iter is not a number' in skipped.reason


def test_resume_stops_if_all_are_damaged(tmp_path, save):
    os.truncate(save('epoch_1.pth', 4), 3000)
    with pytest.raises(FileNotFoundError, match='no checkpoint that can be '
                       r'resumed: .*epoch_1.pth.*--resume CHECKPOINT'):
        resume(tmp_path)


def test_resume_stops_if_named_file_is_missing(tmp_path):
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_1.pth'))
    with pytest.raises(FileNotFoundError, match=r'epoch_1.pth. \(missing\)'):
        resume(tmp_path)


def test_resume_starts_without_checkpoints(tmp_path, lines):
    assert resume(tmp_path) is None and not lines
    assert resume(tmp_path / 'no') is None
    extracted = dict(state_dict={}, meta=dict(source='x', epoch=3, iter=9))
    torch.save(extracted, tmp_path / 'backbone.pth')
    assert resume(tmp_path) is None
    line, = lines
    assert 'starting a new training' in line
    assert 'message_hub is missing' in line


@pytest.mark.parametrize('missing', ['state_dict', 'meta', 'message_hub'])
def test_resume_refuses_other_file(tmp_path, missing):
    other = content(3)
    del other[missing]
    torch.save(other, tmp_path / 'x.pth')
    words = f'which is not a training checkpoint, {missing} is missing'
    with pytest.raises(ValueError, match=f"resume from '.*x.pth', {words}"
                       ) as e:
        find_checkpoint(Config(dict(resume=True,
                                    load_from=str(tmp_path / 'x.pth'))))
    assert '\n' not in str(e.value)


@pytest.mark.parametrize('weights', [
    dict(state_dict=dict(a=torch.ones(1))), dict(a=torch.ones(1))])
def test_load_from_accepts_weights(tmp_path, weights):
    torch.save(weights, tmp_path / 'x.pth')
    find_checkpoint(Config(dict(load_from=str(tmp_path / 'x.pth'))))


@pytest.mark.parametrize('wrong, words', [
    ([1], 'contains a list'),
    (dict(state_dict=[1]), 'state_dict is a list'),
    ({3: 4}, 'a name that is not a string, but a int')])
def test_load_from_refuses_other_content(tmp_path, wrong, words):
    torch.save(wrong, tmp_path / 'x.pth')
    with pytest.raises(ValueError, match=words):
        find_checkpoint(Config(dict(load_from=str(tmp_path / 'x.pth'))))


def test_load_from_refuses_truncated_file(tmp_path, save):
    path = save('epoch_3.pth', 3)
    os.truncate(path, 3000)
    with pytest.raises(ValueError, match=r'epoch_3\.pth.* is truncated'):
        find_checkpoint(Config(dict(load_from=path)))


def test_load_from_checks_path():
    find_checkpoint(Config(dict(load_from=None)))
    find_checkpoint(Config(dict(load_from='https://example.org/e.pth')))
    with pytest.raises(FileNotFoundError, match="checkpoint 'no/epoch_1.pth'"):
        find_checkpoint(Config(dict(load_from='no/epoch_1.pth')))


def test_resume_needs_recent_torch(tmp_path, save, monkeypatch):
    monkeypatch.setattr(torch, '__version__', '2.4.1')
    assert resume(tmp_path) is None  # a training from scratch
    save('epoch_1.pth', 4)
    save('epoch_2.pth', 8)
    with pytest.raises(ValueError, match='2.4.1 .*"torch>=2.6"') as e:
        resume(tmp_path)
    assert str(e.value).count('2.4.1') == 1
