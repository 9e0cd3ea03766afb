import os
import subprocess
import sys

import pytest
from tiny import PYTHONPATH, ROOT

from univip_mm.hosts import find_host as module
from univip_mm.hosts.find_host import is_installed
from univip_mm.hosts.versions import PackageError


@pytest.fixture
def installed(monkeypatch):
    """Set of package names that replaces the installed packages."""
    packages = set()
    monkeypatch.setattr(module, 'is_installed', packages.__contains__)
    monkeypatch.delenv('UNIVIP_HOST', raising=False)
    return packages


def test_find_host_returns_first_installed_host(installed):
    installed.add('mmselfsup')
    assert module.find_host() == 'mmselfsup'
    installed.add('mmpretrain')
    assert module.find_host() == 'mmpretrain'


def test_is_installed_ignores_plain_folder(tmp_path, monkeypatch):
    (tmp_path / 'mmclone/mmclone').mkdir(parents=True)
    (tmp_path / 'mmclone/mmclone/__init__.py').touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert not is_installed('mmclone')
    monkeypatch.syspath_prepend(tmp_path / 'mmclone')
    assert is_installed('mmclone')


def test_find_host_follows_the_environment(installed, monkeypatch):
    installed.update(['mmselfsup', 'mmpretrain'])
    monkeypatch.setenv('UNIVIP_HOST', 'mmselfsup')
    assert module.find_host() == 'mmselfsup'


def error_of_find_host():
    """Return the message of the PackageError, which must be one line."""
    with pytest.raises(PackageError) as e:
        module.find_host()
    assert '\n' not in str(e.value)
    return str(e.value)


def test_find_host_without_host_names_packages(installed):
    assert ('pip install mmpretrain "mmcv-lite<2.2"'
            ) in error_of_find_host()


@pytest.mark.parametrize('host, words', [
    ('mmdet', ["'mmdet'", 'mmpretrain and mmselfsup']),
    ('', ["''", 'mmpretrain and mmselfsup']),
    ('mmselfsup', ["'mmselfsup'", 'not installed', 'pip install mmselfsup',
                   'unset']),
])
def test_find_host_names_wrong_environment_value(installed, monkeypatch,
                                                 host, words):
    installed.add('mmpretrain')
    monkeypatch.setenv('UNIVIP_HOST', host)
    message = error_of_find_host()
    assert 'UNIVIP_HOST' in message and all(word in message for word in words)


def test_check_host_names_missing_mmcv(installed):
    installed.update(['mmengine', 'mmpretrain'])
    with pytest.raises(PackageError, match='needs mmcv, .*"mmcv-lite<2.2"'):
        module.check_host()


def test_refusal_is_the_only_error_in_mmengine(tmp_path):
    # As in the host's train.py, which imports us as custom_imports.
    config = tmp_path / 'config.py'
    config.write_text("custom_imports = dict(imports=['univip_mm'])")
    program = (
        'from importlib import metadata\n'
        'true = metadata.version\n'
        "metadata.version = lambda x: '5.0' if x == 'transformers' else "
        'true(x)\n'
        'from mmengine.config import Config\n'
        f'Config.fromfile({str(config)!r})\n')
    error = subprocess.run(
        [sys.executable, '-c', program], text=True, capture_output=True,
        env=dict(os.environ, PYTHONPATH=PYTHONPATH)).stderr
    assert error.count('Traceback') == 1, error
    last = error.strip().splitlines()[-1]
    assert 'cannot be imported with transformers 5.0' in last
    assert 'pip install "transformers<4.52"' in last


def test_command_refuses_before_it_starts_the_tool():
    program = (
        'import sys, univip_command\n'
        'from importlib import metadata\n'
        'true = metadata.version\n'
        "metadata.version = lambda x: '5.0' if x == 'transformers' else "
        'true(x)\n'
        "sys.argv = ['univip', 'train', 'missing.py']\n"
        'univip_command.main()\n')
    done = subprocess.run([sys.executable, '-c', program], text=True,
                          capture_output=True, cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr.startswith('error: mmpretrain ')
    assert done.stderr.count('\n') == 1
