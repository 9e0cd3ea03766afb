"""Facts about the installation and the machine, for ``univip doctor``.

Packages are imported in processes of their own, because an import can fail,
crash, or load the wrong files. This module imports no other package.
"""
import json
import os
import resource
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Optional

_SECONDS = 300  # for one import; a first import on a network disk is slow
PACKAGES = ('torch', 'torchvision', 'numpy', 'mmengine', 'mmpretrain',
            'mmselfsup', 'mmcv', 'mmcv-lite', 'mmdet', 'mmsegmentation',
            'setuptools', 'transformers', 'opencv-python',
            'opencv-python-headless', 'opencv-contrib-python',
            'opencv-contrib-python-headless')
_OPENCV = '''
import json, cv2
part = getattr(getattr(cv2, 'ximgproc', None), 'segmentation', None)
print(json.dumps(dict(
    version=cv2.__version__,
    search=hasattr(part, 'createSelectiveSearchSegmentation'))))
'''
_TORCH = '''
import json, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter('always')
    import torch, torch.distributed, torchvision
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
print(json.dumps(dict(
    version=torch.__version__, torchvision=torchvision.__version__,
    cuda=torch.version.cuda, hip=torch.version.hip,
    gpus=[dict(name=torch.cuda.get_device_name(i),
               capability=torch.cuda.get_device_capability(i),
               memory=torch.cuda.get_device_properties(i).total_memory)
          for i in range(count)],
    architectures=torch.cuda.get_arch_list() if count else [],
    nccl=torch.distributed.is_available()
    and torch.distributed.is_nccl_available(),
    warning=next((str(x.message) for x in caught
                  if 'CUDA' in str(x.message)), ''))))
'''
# Fails if the torchvision of this machine has no nvJPEG.
_NVJPEG = '''
import io, json, numpy, torch
from PIL import Image
from torchvision.io import decode_jpeg
file = io.BytesIO()
Image.fromarray(numpy.zeros((16, 16, 3), 'uint8')).save(file, 'JPEG')
data = torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)
print(json.dumps(tuple(decode_jpeg(data, device='cuda').shape)))
'''
_IMPORT = 'import univip_mm; print("null")'


def run_program(program: str, env: Optional[Mapping[str, str]] = None) -> Any:
    """Return what a Python program prints as JSON, or its error as a str."""
    try:
        done = subprocess.run(
            [sys.executable, '-W', 'ignore', '-c', program], text=True,
            errors='replace', capture_output=True, timeout=_SECONDS, env=env)
    except subprocess.TimeoutExpired:
        return f'no answer within {_SECONDS} s'
    if done.returncode < 0:
        return f'the process was ended by signal {-done.returncode}'
    if done.returncode:
        return (done.stderr.strip() or 'no message').splitlines()[-1]
    try:
        return json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        return 'no readable answer'


def find_versions() -> dict[str, str]:
    """Return the versions of the installed packages of PACKAGES."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            pass
    return versions


def find_opencv() -> Any:
    """Return version and ``search`` of the OpenCV in use, or the error."""
    return run_program(_OPENCV)


def find_torch() -> Any:
    """Return facts about PyTorch and the GPUs, or the error of the import."""
    return run_program(_TORCH)


def find_nvjpeg() -> str:
    """Return why the GPU cannot decode JPEG files, or ''."""
    answer = run_program(_NVJPEG)
    return answer if isinstance(answer, str) else ''


def import_error(env: Mapping[str, str]) -> str:
    """Return the error of ``import univip_mm``, or ''."""
    return run_program(_IMPORT, env) or ''


def find_driver() -> str:
    """Return the version of the NVIDIA driver, '?' if unknown, '' if none."""
    path = Path('/proc/driver/nvidia/version')
    if path.is_file():
        words = path.read_text().split()
        numbers = [x for x in words if x[:1].isdigit() and '.' in x]
        return numbers[0] if numbers else '?'
    return '?' if shutil.which('nvidia-smi') else ''


def find_machine() -> dict[str, Any]:
    """Return the cores, memory and limits that this process may use.

    Sizes are in bytes; an unknown value is None.
    """
    cores = (len(os.sched_getaffinity(0))
             if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1)
    return dict(
        cores=_quota() or cores, memory=_memory(),
        shared=_free('/dev/shm', total=True),
        disk=_free('.'), folder=os.getcwd(),
        files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        compiler=shutil.which('gcc') or shutil.which('cc'),
        headers=Path(sysconfig.get_paths()['include'], 'Python.h').is_file())


def _quota() -> Optional[float]:
    """Return the cores of the container's quota (cgroup 2), if any."""
    try:
        quota, period = Path('/sys/fs/cgroup/cpu.max').read_text().split()
        return None if quota == 'max' else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _memory() -> Optional[int]:
    """Return the memory of the machine, or of the container if it is less."""
    sizes = []
    try:
        lines = Path('/proc/meminfo').read_text().splitlines()
        sizes.append(next(int(x.split()[1]) * 1024 for x in lines
                          if x.startswith('MemTotal')))
    except (OSError, StopIteration):
        pass
    try:
        sizes.append(int(Path('/sys/fs/cgroup/memory.max').read_text()))
    except (OSError, ValueError):  # ValueError: 'max'
        pass
    return min(sizes, default=None)


def _free(path: str, total: bool = False) -> Optional[int]:
    try:
        usage = shutil.disk_usage(path)
    except OSError:
        return None
    return usage.total if total else usage.free
