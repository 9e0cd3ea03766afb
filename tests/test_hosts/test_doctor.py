import json
import os
import subprocess
import sys
from importlib import metadata

import pytest
from tiny import ROOT

from univip_mm.hosts import doctor
from univip_mm.hosts.doctor import FAIL, OK, WARN

H100 = dict(name='NVIDIA H100', capability=(9, 0), memory=80 << 30)
TORCH = dict(version='2.14.1+cu130', torchvision='0.29.1', cuda='13.0',
             hip=None, gpus=[H100], architectures=['sm_80', 'sm_90'],
             nccl=True, warning='')
CPU = dict(TORCH, cuda=None, gpus=[], architectures=[])
MACHINE = dict(cores=16, memory=64 << 30, shared=32 << 30, disk=1 << 40,
               folder='/data', files=65536, compiler='/usr/bin/gcc',
               headers=True)

# Packages that a broken installation may lack.
BLOCKED = ('torch', 'cv2', 'mmengine', 'mmpretrain', 'numpy')


def levels_and_text(findings):
    findings = list(findings)
    assert all('\n' not in str(x) for x in findings)
    return ([x.level for x in findings],
            '\n'.join(str(x) for x in findings))


@pytest.mark.parametrize('opencv, level, text', [
    (dict(version='5.0.0', search=True), OK, 'opencv-python 5.0.0.93'),
    (dict(version='5.0.0', search=False), FAIL, doctor.CONTRIB),
    ('ImportError: libGL.so.1: no such file', FAIL, 'libGL'),
])
def test_check_opencv_names_the_command(opencv, level, text):
    levels, said = levels_and_text(doctor.check_opencv(
        opencv, {'opencv-python': '5.0.0.93', 'numpy': '2.4.6'}))
    assert levels == [level] and text in said


@pytest.mark.parametrize('torch, level, text', [
    (TORCH, OK, '2.14.1'),
    (dict(TORCH, version='2.5.1'), FAIL, '"torch>=2.6"'),
    ("RuntimeError: operator torchvision::nms does not exist", FAIL,
     doctor.TORCH),
])
def test_check_torch_finds_broken_pairs(torch, level, text):
    levels, said = levels_and_text(doctor.check_torch(torch))
    assert levels == [level] and text in said


@pytest.mark.parametrize('torch, driver, level, text', [
    (TORCH, '580.65', OK, 'bfloat16'),
    (dict(TORCH, gpus=[dict(H100, capability=(7, 5))],
          architectures=['sm_75']), '580.65', OK, 'float16'),
    (dict(TORCH, gpus=[dict(H100, capability=(7, 0))]), '580.65', FAIL,
     'no code for it'),
    # Machine code of the same major version, and PTX for newer GPUs.
    (dict(TORCH, gpus=[dict(H100, capability=(8, 9))]), '', OK, '8.9'),
    (dict(TORCH, gpus=[dict(H100, capability=(12, 0))]), '', FAIL, '12.0'),
    (dict(TORCH, gpus=[dict(H100, capability=(12, 0))],
          architectures=['compute_90']), '', OK, '12.0'),
    (CPU, '', WARN, 'none: a training runs on the CPU'),
    (CPU, '580.65', WARN, 'build for the CPU'),
    (dict(TORCH, gpus=[], warning='The NVIDIA driver is too old (Triggered '
          'internally)'), '470.1', WARN, '(The NVIDIA driver is too old)'),
])
def test_check_gpus_compares_build_and_driver(torch, driver, level, text):
    levels, said = levels_and_text(doctor.check_gpus(torch, driver))
    assert levels == [level] and text in said


def test_check_gpu_tools_reports_each_way():
    levels, _ = levels_and_text(doctor.check_gpu_tools(TORCH, '', MACHINE))
    assert levels == [OK] * 3
    levels, said = levels_and_text(doctor.check_gpu_tools(
        dict(TORCH, gpus=[H100] * 2, nccl=False), 'no nvJPEG',
        dict(MACHINE, compiler=None)))
    assert levels == [FAIL, WARN, WARN]
    assert 'no NCCL' in said and 'no nvJPEG' in said and 'gcc missing' in said


@pytest.mark.parametrize('changes, text', [
    (dict(cores=2), '2 for 1 GPUs'),
    (dict(memory=1 << 30), '1.1 GB'),
    (dict(shared=64 << 20), '--shm-size'),
    (dict(disk=1 << 20), 'below /data'),
    (dict(files=256), 'ulimit -n'),
])
def test_check_machine_warns_of_small_limits(changes, text):
    levels, said = levels_and_text(
        doctor.check_machine(dict(MACHINE, **changes), TORCH))
    assert levels.count(WARN) == 1 and text in said


def test_check_machine_accepts_unlimited_and_unknown():
    levels, _ = levels_and_text(doctor.check_machine(
        dict(MACHINE, files=-1, shared=None), 'no torch'))
    assert set(levels) == {OK}


@pytest.fixture
def versions(monkeypatch):
    """Dict that replaces the versions of all packages."""
    packages = {'mmpretrain': '1.2.0', 'mmengine': '0.10.7',
                'mmcv-lite': '2.1.0', 'setuptools': '80.9.0'}

    def version(package):
        if package not in packages:
            raise metadata.PackageNotFoundError(package)
        return packages[package]

    monkeypatch.setattr(metadata, 'version', version)
    return packages


@pytest.mark.parametrize('changes, levels, text', [
    ({}, [OK] * 3, ''),
    (dict(setuptools='82.0.1'), [OK, OK, WARN], doctor.SETUPTOOLS),
    (dict(mmcv='2.1.0'), [OK, WARN, OK], 'mmcv==2.1.0'),
    (dict(transformers='5.24.0', mmdet='3.3.0', mmcv='2.2.0'),
     [FAIL, FAIL, WARN, OK], '"mmcv<2.2"'),
])
def test_check_packages_finds_all_conflicts(versions, changes, levels, text):
    versions.update(changes)
    found, said = levels_and_text(doctor.check_packages(versions))
    assert found == levels and text in said


def test_doctor_works_without_any_package(tmp_path):
    for name in BLOCKED:
        (tmp_path / name).mkdir()
        (tmp_path / name / '__init__.py').write_text(
            f"raise ImportError('{name} is broken')")
    done = subprocess.run(
        [sys.executable, ROOT / 'tools/doctor.py', '--json'], text=True,
        capture_output=True, env=dict(
            os.environ, PYTHONPATH=f'{tmp_path}{os.pathsep}{ROOT}'))
    assert done.returncode == 1, done.stderr
    faults = {x['subject'] for x in json.loads(done.stdout)
              if x['level'] == 'FAIL'}
    assert faults == {'OpenCV', 'PyTorch', 'univip_mm'}
