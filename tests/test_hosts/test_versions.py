import re
import subprocess
import sys
from importlib import metadata

import pytest

from univip_mm.hosts.versions import (
    PackageError,
    check_conflicts,
    check_min_version,
    reader_fault,
    reader_refusal,
)
from univip_mm.registry import HOST


@pytest.fixture
def installed(monkeypatch):
    """Dict of package versions that replaces the installed packages."""
    versions = {}

    def version(package):
        if package not in versions:
            raise metadata.PackageNotFoundError(package)
        return versions[package]

    monkeypatch.setattr(metadata, 'version', version)
    return versions


def error_of(function, *arguments):
    """Return the message of the PackageError, which must be one line."""
    with pytest.raises(PackageError) as e:
        function(*arguments)
    assert '\n' not in str(e.value)
    return str(e.value)


@pytest.mark.parametrize('package, version, required', [
    ('mmengine', '0.8.2', '0.8.3'),
    ('mmpretrain', '1.0.0rc8', '1.0.0'),
    ('mmselfsup', '0.11.0', '1.0.0'),
    ('mmselfsup', '1.0.0rc6', '1.0.0'),
])
def test_check_min_version_rejects_old_package(installed, package, version,
                                               required):
    installed[package] = version
    message = error_of(check_min_version, package)
    assert f'{package} >= {required}' in message
    assert f'{version} is installed' in message
    assert f'pip install "{package}>={required}"' in message


@pytest.mark.parametrize('package, version', [
    ('mmengine', '0.8.3'),
    ('mmengine', '0.10.7'),
    ('mmpretrain', '1.0.0'),
    ('mmpretrain', '1.2.0'),
    ('mmselfsup', '1.0.0'),
])
def test_check_min_version_accepts_recent_package(installed, package,
                                                  version):
    installed[package] = version
    check_min_version(package)


def test_check_min_version_accepts_source_tree(installed):
    check_min_version('mmpretrain')


@pytest.mark.parametrize('package', ['mmengine', HOST])
def test_import_checks_versions_before_the_host(package):
    # A host of the old framework cannot be imported together with MMEngine.
    program = (
        'import sys\n'
        'from importlib import metadata\n'
        'true = metadata.version\n'
        "metadata.version = lambda x: '0.5.0' if x == sys.argv[1] else "
        'true(x)\n'
        'try:\n'
        '    import univip_mm\n'
        'except RuntimeError as e:\n'
        '    print(e)\n'
        f"print('{HOST}' in sys.modules)\n")
    out = subprocess.run([sys.executable, '-c', program, package], text=True,
                         capture_output=True).stdout.splitlines()
    assert f'{package} >= ' in out[0] and '0.5.0 is installed' in out[0]
    assert out[1:] == ['False']


@pytest.mark.parametrize('numpy, torch', [
    ('2.0.0', '2.1.2'), ('2.2.6', '2.2.2+cu121'), ('2.4.6', '2.2.2+cpu')])
def test_check_conflicts_rejects_numpy_2_with_old_torch(
        installed, numpy, torch):
    installed.update(numpy=numpy, torch=torch)
    message = error_of(check_conflicts)
    assert "pip install \"numpy<2\"'" in message
    assert f'numpy {numpy}, but {torch} is installed' in message


def test_check_conflicts_rejects_yapf_with_old_mmengine(installed):
    installed.update(yapf='0.43.0', mmengine='0.8.3')
    assert re.search(
        'needs mmengine >= 0.8.5 with yapf 0.43.0, .* "yapf<0.40.2"',
        error_of(check_conflicts))


@pytest.mark.parametrize('transformers', ['4.52.4', '5.17.0'])
def test_check_conflicts_rejects_transformers_with_host(
        installed, transformers):
    installed.update(transformers=transformers, mmpretrain='1.2.0')
    assert ('mmpretrain 1.2.0 cannot be imported with transformers '
            f"{transformers}: 'pip install \"transformers<4.52\"'"
            ) in error_of(check_conflicts)
    check_conflicts('mmselfsup')


@pytest.mark.parametrize('package', ['mmcv', 'mmcv-lite'])
@pytest.mark.parametrize('host', ['mmpretrain', 'mmselfsup'])
def test_check_conflicts_rejects_new_mmcv_with_mmdet(
        installed, package, host):
    installed.update({package: '2.2.0', 'mmdet': '3.3.0'})
    assert ('mmdet 3.3.0 cannot be imported with '
            f"{package} 2.2.0: 'pip install \"{package}<2.2\"'"
            ) in error_of(check_conflicts, host)


@pytest.mark.parametrize('versions', [
    dict(transformers='4.51.3', mmpretrain='1.2.0'),
    {'mmcv-lite': '2.2.0', 'mmpretrain': '1.2.0'},
    {'mmcv-lite': '2.1.0', 'mmdet': '3.3.0'},
    dict(transformers='5.17.0', mmselfsup='1.0.0'),
    dict(yapf='0.40.1', mmengine='0.8.3'),
    dict(yapf='0.43.0', mmengine='0.8.5'),
    dict(numpy='1.26.4', torch='2.1.2'),
    dict(numpy='2.2.6', torch='2.3.1+cu121'),
    dict(numpy='2.4.6', torch='2.11.0'),
    dict(numpy='2.4.6'),  # PyTorch as a source tree
    dict(),
])
def test_check_conflicts_accepts_working_pairs(installed, versions):
    installed.update(versions)
    check_conflicts()


@pytest.mark.parametrize('version, refused, faulty', [
    ('2.1.2', True, True), ('2.5.1+cu121', True, True),
    ('2.6.0', False, True), ('2.9.1+cpu', False, True),
    ('2.10.0', False, False), ('2.11.0+cu130', False, False)])
def test_reader_depends_on_torch(version, refused, faulty):
    for text, expected, cure in (
            (reader_refusal(version), refused, '"torch>=2.6"'),
            (reader_fault(version), faulty, '"torch>=2.10"')):
        assert bool(text) == expected
        assert not text or (version in text and cure in text)
