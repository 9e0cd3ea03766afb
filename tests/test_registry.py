import importlib
import subprocess
import sys
from importlib import metadata

import pytest
from mmengine.registry import DefaultScope

from univip_mm import registry
from univip_mm.registry import HOST, check_version, find_host


@pytest.fixture
def installed(monkeypatch):
    """Packages and their versions, in place of those of the machine."""
    versions = {}

    def version(package):
        if package not in versions:
            raise metadata.PackageNotFoundError(package)
        return versions[package]

    monkeypatch.setattr(metadata, 'version', version)
    monkeypatch.setattr(registry, 'is_installed', versions.__contains__)
    monkeypatch.delenv('UNIVIP_HOST', raising=False)
    return versions


@pytest.mark.parametrize('kind, name', [
    ('MODELS', 'UniVIP'),
    ('MODELS', 'UniVIPNeck'),
    ('MODELS', 'SinkhornOTLoss'),
    ('MODELS', 'UniVIPDataPreprocessor'),
    ('TRANSFORMS', 'OverlapSceneCrop'),
    ('DATASETS', 'ProposalCocoDataset'),
    ('DATASETS', 'CocoMultiLabel'),
    ('HOOKS', 'SafeResumeHook'),
    ('HOOKS', 'SkippedImagesHook'),
    ('METRICS', 'MultiLabelProbe'),
])
def test_our_parts_are_registered_under_our_scope(kind, name):
    ours = getattr(registry, kind)
    hosts = getattr(importlib.import_module(f'{HOST}.registry'), kind)
    assert ours.scope == 'univip_mm' and name in ours.module_dict
    assert ours.get(name).__module__.startswith('univip_mm.')
    # Other scopes reach it by its full name, and never by the bare one.
    assert hosts.get(f'univip_mm.{name}') is ours.get(name)
    assert hosts.get(name) is None


@pytest.mark.parametrize('kind, name', [
    ('MODELS', 'ResNet'),
    ('MODELS', 'NonLinearNeck'),
    ('MODELS', 'LatentPredictHead'),
    ('MODELS', 'CosineSimilarityLoss'),
    ('MODELS', 'CosineEMA'),
    ('MODELS', 'BN1d'),
    ('OPTIMIZERS', 'LARS'),
    ('OPTIMIZERS', 'SGD'),
    ('OPTIM_WRAPPERS', 'AmpOptimWrapper'),
    ('PARAM_SCHEDULERS', 'CosineAnnealingLR'),
    ('TRANSFORMS', 'PackInputs'),
    ('TRANSFORMS', 'LoadImageFromFile'),
    ('DATASETS', 'ConcatDataset'),
    ('DATA_SAMPLERS', 'DefaultSampler'),
    ('HOOKS', 'CheckpointHook'),
    ('LOOPS', 'EpochBasedTrainLoop'),
    ('MODEL_WRAPPERS', 'MMDistributedDataParallel'),
    ('VISUALIZERS', 'UniversalVisualizer'),
])
def test_parts_of_the_host_are_found_through_ours(kind, name):
    assert getattr(registry, kind).get(name) is not None


def test_a_backbone_of_the_host_is_the_hosts():
    assert registry.MODELS.get('ResNet').__module__.startswith(f'{HOST}.')


def test_a_config_of_the_hosts_scope_builds_univip_by_its_full_name():
    hosts = importlib.import_module(f'{HOST}.registry').MODELS
    with DefaultScope.overwrite_default_scope(HOST):
        neck = hosts.build(
            dict(type='univip_mm.UniVIPNeck', in_channels=8, out_channels=8))
    assert type(neck) is registry.MODELS.get('UniVIPNeck')


def test_importing_the_package_is_all_that_a_project_needs():
    program = (
        'import univip_mm\n'
        f'from {HOST}.registry import MODELS\n'
        "print(MODELS.get('univip_mm.UniVIP').__name__)\n")
    said = subprocess.run([sys.executable, '-c', program], text=True,
                          capture_output=True)
    assert said.stdout == 'UniVIP\n', said.stderr


def test_first_of_the_hosts_that_is_installed_is_taken(installed):
    installed.update(mmselfsup='1.0.0')
    assert find_host() == 'mmselfsup'
    installed.update(mmpretrain='1.2.0')
    assert find_host() == 'mmpretrain'


def test_a_folder_of_the_host_s_name_is_no_host(tmp_path, monkeypatch):
    (tmp_path / 'mmclone/mmclone').mkdir(parents=True)
    (tmp_path / 'mmclone/mmclone/__init__.py').touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert not registry.is_installed('mmclone')
    monkeypatch.syspath_prepend(tmp_path / 'mmclone')
    assert registry.is_installed('mmclone')


def test_environment_chooses_among_the_hosts(installed, monkeypatch):
    installed.update(mmselfsup='1.0.0', mmpretrain='1.2.0')
    monkeypatch.setenv('UNIVIP_HOST', 'mmselfsup')
    assert find_host() == 'mmselfsup'


def refused(function, *arguments):
    """The one line of an ImportError."""
    with pytest.raises(ImportError) as e:
        function(*arguments)
    assert '\n' not in str(e.value)
    return str(e.value)


def test_no_host_is_told_with_the_cure(installed):
    message = refused(find_host)
    assert 'pip install mmpretrain mmcv-lite' in message


@pytest.mark.parametrize('host, words', [
    ('mmdet', ["'mmdet'", 'mmpretrain and mmselfsup']),
    ('', ["''", 'mmpretrain and mmselfsup']),
    ('mmselfsup', ["'mmselfsup'", 'not installed', 'pip install mmselfsup',
                   'unset']),
])
def test_a_wrong_host_in_the_environment_is_named(installed, monkeypatch,
                                                  host, words):
    installed.update(mmpretrain='1.2.0')
    monkeypatch.setenv('UNIVIP_HOST', host)
    message = refused(find_host)
    assert 'UNIVIP_HOST' in message and all(word in message for word in words)


@pytest.mark.parametrize('package, version, required', [
    ('mmengine', '0.8.2', '0.8.3'),
    ('mmpretrain', '1.0.0rc8', '1.0.0'),
    ('mmselfsup', '0.11.0', '1.0.0'),
    ('mmselfsup', '1.0.0rc6', '1.0.0'),
])
def test_an_old_package_is_refused_with_the_cure(installed, package, version,
                                                 required):
    installed[package] = version
    message = refused(check_version, package)
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
def test_a_recent_package_is_taken(installed, package, version):
    installed[package] = version
    check_version(package)


def test_a_source_tree_is_taken_as_it_is(installed):
    check_version('mmpretrain')


@pytest.mark.parametrize('package', ['mmengine', HOST])
def test_versions_are_checked_before_the_host_is_imported(package):
    # The host of the old framework cannot even be imported beside MMEngine.
    program = (
        'import sys\n'
        'from importlib import metadata\n'
        'true = metadata.version\n'
        "metadata.version = lambda x: '0.5.0' if x == sys.argv[1] else "
        'true(x)\n'
        'try:\n'
        '    import univip_mm\n'
        'except ImportError as e:\n'
        '    print(e)\n'
        f"print('{HOST}' in sys.modules)\n")
    said = subprocess.run([sys.executable, '-c', program, package], text=True,
                          capture_output=True).stdout.splitlines()
    assert f'{package} >= ' in said[0] and '0.5.0 is installed' in said[0]
    assert said[1:] == ['False']
