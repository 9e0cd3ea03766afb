from importlib import metadata

import pytest

from univip_mm.hosts.versions import check_pairs


@pytest.fixture
def installed(monkeypatch):
    """Packages and their versions, in place of those of the machine."""
    versions = {}

    def version(package):
        if package not in versions:
            raise metadata.PackageNotFoundError(package)
        return versions[package]

    monkeypatch.setattr(metadata, 'version', version)
    return versions


@pytest.mark.parametrize('numpy, torch', [
    ('2.0.0', '2.1.2'), ('2.2.6', '2.2.2+cu121'), ('2.4.6', '2.2.2+cpu')])
def test_numpy_2_is_refused_beside_a_pytorch_built_for_numpy_1(
        installed, numpy, torch):
    installed.update(numpy=numpy, torch=torch)
    with pytest.raises(ImportError) as e:
        check_pairs()
    message = str(e.value)
    assert '\n' not in message and "pip install \"numpy<2\"'" in message
    assert f'numpy {numpy}, but {torch} is installed' in message


def test_a_formatter_that_mmengine_cannot_call_is_refused(installed):
    installed.update(yapf='0.43.0', mmengine='0.8.3')
    with pytest.raises(ImportError, match='needs mmengine >= 0.8.5 beside '
                       'yapf 0.43.0, .* "yapf<0.40.2"'):
        check_pairs()


@pytest.mark.parametrize('transformers', ['4.52.4', '5.17.0'])
def test_what_the_host_cannot_be_imported_beside_is_refused(
        installed, transformers):
    installed.update(transformers=transformers, mmpretrain='1.2.0')
    with pytest.raises(ImportError, match='mmpretrain 1.2.0 cannot be '
                       f'imported beside transformers {transformers}: '
                       "'pip install \"transformers<4.52\"'"):
        check_pairs()
    check_pairs('mmselfsup')


@pytest.mark.parametrize('versions', [
    dict(transformers='4.51.3', mmpretrain='1.2.0'),
    dict(transformers='5.17.0', mmselfsup='1.0.0'),
    dict(yapf='0.40.1', mmengine='0.8.3'),
    dict(yapf='0.43.0', mmengine='0.8.5'),
    dict(numpy='1.26.4', torch='2.1.2'),
    dict(numpy='2.2.6', torch='2.3.1+cu121'),
    dict(numpy='2.4.6', torch='2.11.0'),
    dict(numpy='2.4.6'),  # PyTorch of a source tree
    dict(),
])
def test_pairs_that_work_are_taken(installed, versions):
    installed.update(versions)
    check_pairs()
