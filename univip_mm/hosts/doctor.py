"""Checks of the installation and the machine, for ``univip doctor``.

Each check takes facts of :mod:`univip_mm.hosts.facts` and returns findings.
The module works without PyTorch, without a host, and with broken packages.
"""
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Optional

from ..utils.text import printable, size_text
from . import facts
from .find_host import check_host
from .versions import (
    PackageError,
    find_conflicts,
    reader_fault,
    reader_refusal,
)

OK, WARN, FAIL = 'ok', 'warn', 'FAIL'
SETUPTOOLS = 'pip install "setuptools>=77,<81"'
TORCH = 'pip install --upgrade torch torchvision'
CONTRIB = ('pip install --force-reinstall --no-deps '
           'opencv-contrib-python-headless')
# A batch of 64 images is 33 MB, a worker holds 2 of them, and Docker's
# default for /dev/shm is 64 MB.
MIN_SHARED = 1 << 30
MIN_FILES = 1024  # each view of a batch in a queue is an open file
MIN_MEMORY = 8 << 30
MIN_DISK = 10 << 30  # a checkpoint of ResNet-50 has about 0.5 GB
CORES_PER_GPU = 4


class Finding(NamedTuple):
    """Result of one check."""
    level: str  # OK, WARN or FAIL: no training can work
    subject: str
    text: str
    fix: str = ''  # command

    def __str__(self) -> str:
        fix = f": '{self.fix}'" if self.fix else ''
        return printable(
            f'{self.level:<5} {self.subject:<12} {self.text}{fix}')


def examine(env: Mapping[str, str]) -> Iterator[Finding]:
    """Yield the findings of all checks.

    Args:
        env (Mapping): Environment variables of the user's processes, in which
            ``import univip_mm`` is tried.
    """
    versions = facts.find_versions()
    yield from check_packages(versions)
    yield from check_opencv(facts.find_opencv(), versions)
    torch = facts.find_torch()
    yield from check_torch(torch)
    machine = facts.find_machine()
    if isinstance(torch, dict):
        yield from check_gpus(torch, facts.find_driver())
        if torch['gpus']:
            yield from check_gpu_tools(torch, facts.find_nvjpeg(), machine)
    yield check_import(facts.import_error(env))
    yield from check_machine(machine, torch)


def check_packages(versions: Mapping[str, str]) -> Iterator[Finding]:
    """Check the host and the packages that break each other."""
    try:
        host = check_host()
    except PackageError as e:
        yield Finding(FAIL, 'packages', str(e))
        host = 'mmpretrain'
        messages = [x for x in find_conflicts(host) if x != str(e)]
    else:
        yield Finding(OK, 'host', _named(versions, host, 'mmengine'))
        messages = list(find_conflicts(host))
    for message in messages:
        yield Finding(FAIL, 'packages', message)
    if {'mmcv', 'mmcv-lite'} <= versions.keys():
        yield Finding(
            WARN, 'mmcv', 'mmcv and mmcv-lite write to the same folder; '
            'without mmcv-lite, install mmcv again',
            'pip uninstall -y mmcv-lite; pip install --force-reinstall '
            f'--no-deps mmcv=={versions["mmcv"]}')
    elif 'mmcv' in versions or 'mmcv-lite' in versions:
        yield Finding(OK, 'mmcv', _named(versions, 'mmcv', 'mmcv-lite'))
    major = int(versions.get('setuptools', '0').split('.')[0])
    if 0 < major < 82:
        yield Finding(OK, 'setuptools', versions['setuptools'])
    else:
        yield Finding(
            WARN, 'setuptools', f'{versions.get("setuptools", "none")}, '
            "without pkg_resources, which _base_ = 'mmpretrain::...' needs",
            SETUPTOOLS)


def check_opencv(opencv: Any,
                 versions: Mapping[str, str]) -> Iterator[Finding]:
    """Check that OpenCV works and has selective search."""
    builds = [x for x in versions if x.startswith('opencv-')]
    names = _named(versions, *builds) or 'no package of pip'
    if isinstance(opencv, str):
        yield Finding(FAIL, 'OpenCV', f'{names}, but import cv2 fails: '
                      f'{opencv}', CONTRIB)
    elif not opencv['search']:
        yield Finding(
            FAIL, 'OpenCV', f'no selective search, so proposals cannot be '
            f'made; the last installed of these has the folder cv2: {names}',
            CONTRIB)
    else:
        yield Finding(OK, 'OpenCV', f'{opencv["version"]} with selective '
                      f'search ({names})')


def check_torch(torch: Any) -> Iterator[Finding]:
    """Check that PyTorch and torchvision work and read checkpoints."""
    if isinstance(torch, str):
        yield Finding(FAIL, 'PyTorch', f'import fails: {torch}', TORCH)
        return
    version = torch['version']
    text = f'{version}, torchvision {torch["torchvision"]}'
    # Both messages name the command.
    if refusal := reader_refusal(version):  # no backbone could be written
        yield Finding(FAIL, 'PyTorch', refusal)
    else:
        fault = reader_fault(version)
        yield Finding(WARN if fault else OK, 'PyTorch', fault or text)


def check_gpus(torch: Mapping[str, Any], driver: str) -> Iterator[Finding]:
    """Check that PyTorch sees the GPUs and has kernels for them."""
    build = torch['cuda'] or torch['hip']
    for gpu in torch['gpus']:
        major, minor = gpu['capability']
        text = (f'{gpu["name"]}, {size_text(gpu["memory"])}, compute '
                f'capability {major}.{minor}, CUDA {build}, driver '
                f'{driver or "unknown"}')
        if torch['hip'] or _has_kernels(torch['architectures'], major, minor):
            half = 'bfloat16' if major >= 8 or torch['hip'] else (
                'no fast bfloat16: use float16')
            yield Finding(OK, 'GPU', f'{text}, {half}')
        else:
            yield Finding(
                FAIL, 'GPU', f'{text}: this PyTorch has no code for it, only '
                f'for {", ".join(torch["architectures"])}; choose another '
                'build on https://pytorch.org/get-started/locally')
    if torch['gpus']:
        return
    if driver and not build:
        yield Finding(
            WARN, 'GPU', f'driver {driver} is installed, but this PyTorch is '
            'a build for the CPU: install a CUDA build from '
            'https://pytorch.org/get-started/locally')
    elif driver:
        reason = torch['warning'].split('(Triggered')[0].strip()
        yield Finding(
            WARN, 'GPU', f'driver {driver} is installed, but PyTorch with '
            f'CUDA {build} cannot use it ({reason or "no reason given"}): '
            'update the driver, or check CUDA_VISIBLE_DEVICES')
    else:
        yield Finding(WARN, 'GPU', 'none: a training runs on the CPU, which '
                      'is enough for a trial only; SyncBN becomes BN')


def _has_kernels(architectures: list, major: int, minor: int) -> bool:
    """Return True if a build runs on a GPU of this compute capability.

    Machine code (sm_86) runs on its own and later minor versions; PTX
    (compute_90) on all later GPUs.
    """
    for name in architectures:
        kind, _, number = name.partition('_')
        number = number.rstrip('af')
        known = int(number[:-1]), int(number[-1])
        if known == (major, minor) or known < (major, minor) and (
                kind == 'compute' or known[0] == major):
            return True
    return not architectures


def check_gpu_tools(torch: Mapping[str, Any], nvjpeg: str,
                    machine: Mapping[str, Any]) -> Iterator[Finding]:
    """Check what the faster ways of a GPU need."""
    if len(torch['gpus']) > 1 and not torch['nccl']:
        yield Finding(FAIL, 'SyncBN', 'this PyTorch has no NCCL, so GPUs '
                      'cannot train together', TORCH)
    else:
        yield Finding(OK, 'SyncBN', 'works on a GPU' + (
            ', over several with NCCL' if torch['nccl'] else ''))
    yield Finding(WARN, 'nvJPEG', f"decode='device' cannot work: {nvjpeg}; "
                  "use the default decode='worker'") if nvjpeg else Finding(
                      OK, 'nvJPEG', 'decodes JPEG files on the GPU')
    missing = [name for name, there in (
        ('gcc', machine['compiler']), ('Python.h', machine['headers']))
        if not there]
    yield Finding(
        WARN, 'Triton', f'{" and ".join(missing)} missing, which its kernels '
        'need; slower kernels are used', 'apt install gcc python3-dev'
    ) if missing else Finding(OK, 'Triton', 'has a C compiler')


def check_import(error: str) -> Finding:
    """Check that the package can be imported with its host."""
    if error:
        return Finding(FAIL, 'univip_mm', f'import fails: {error}')
    return Finding(OK, 'univip_mm', 'can be imported with its host')


def check_machine(machine: Mapping[str, Any], torch: Any) -> Iterator[Finding]:
    """Check cores, memory, disk and limits."""
    gpus = len(torch['gpus']) if isinstance(torch, dict) else 0
    cores = machine['cores']
    few = cores < CORES_PER_GPU * gpus
    yield Finding(
        WARN if few else OK, 'cores', f'{cores:g}' + (
            f' for {gpus} GPUs: they may wait for images; see page "Feed the '
            'GPUs"' if few else ''))
    yield _size('memory', machine['memory'], MIN_MEMORY, 'use fewer '
                'num_workers and a smaller batch')
    yield _size('/dev/shm', machine['shared'], MIN_SHARED, 'workers may end '
                'with a bus error; in Docker, start the container with '
                '--shm-size=8g, otherwise',
                'mount -o remount,size=8G /dev/shm')
    yield _size('disk', machine['disk'], MIN_DISK, 'checkpoints may not fit; '
                'choose an --out on a larger disk',
                where=f' free below {machine["folder"]}')
    few = 0 < machine['files'] < MIN_FILES
    yield Finding(
        WARN if few else OK, 'open files', f'at most {machine["files"]}' + (
            ', which workers can exceed' if few else ''),
        'ulimit -n 4096' if few else '')


def _size(subject: str, size: Optional[int], minimum: int, advice: str,
          fix: str = '', where: str = '') -> Finding:
    if size is None:
        return Finding(OK, subject, 'unknown')
    text = f'{size_text(size)}{where}'
    if size >= minimum:
        return Finding(OK, subject, text)
    return Finding(WARN, subject, f'{text}: {advice}', fix)


def _named(versions: Mapping[str, str], *packages: str) -> str:
    return ', '.join(f'{x} {versions[x]}' for x in packages if x in versions)
