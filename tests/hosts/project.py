"""A user's project outside of this repository.

The host's own tools run in it, with the installed wheel of univip_mm.
"""
import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

HOST = 'mmselfsup' if find_spec('mmselfsup') else 'mmpretrain'
EPOCHS = 2

# The project's config: ours with another K, other data and schedule.
CONFIG = '''
_base_ = __import__('univip_mm').config_path('univip_r18_demo.py')
custom_imports = dict(imports=[{imports}])

model = dict(fusion_neck=dict(num_instances=2))
train_pipeline = [
    dict(type='LoadEncodedImage'),
    dict(type='OverlapSceneCrop', num_instances=2, scene_size=32,
         instance_size=32, min_size=32),
    dict(type='PackInputs',
         meta_keys=('img_path', 'img_id', 'num_proposed', 'view_seed'))]
train_dataloader = dict(
    batch_size={batch_size}, num_workers=0, persistent_workers=False,
    dataset=dict(pipeline=train_pipeline))
param_scheduler = [
    dict(type='CosineAnnealingLR', eta_min=0., by_epoch=True, begin=0, end=2,
         convert_to_iter_based=True)]
train_cfg = dict(max_epochs=2)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1))
log_processor = dict(window_size=1)
'''
ON_CPUS = '''
model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None,
                         broadcast_buffers=False)
'''
# MMEngine starts process groups only on GPUs, but uses an existing group.
CPU_GROUP = '''
import os
import torch.distributed
if 'RANK' in os.environ and not torch.distributed.is_initialized():
    torch.distributed.init_process_group('gloo')
'''


def environment() -> dict:
    kept = {
        name: value for name, value in os.environ.items()
        if name not in ('PYTHONPATH', 'UNIVIP_HOST')
    }
    paths = os.path.dirname(sys.executable) + os.pathsep + kept['PATH']
    return dict(kept, PATH=paths, CUDA_VISIBLE_DEVICES='',
                OMP_NUM_THREADS='1')


def run(folder: Path, *command, fails=False, **variables) -> str:
    """Run a command in a folder and return its output."""
    done = subprocess.run(
        [str(word) for word in command], cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env=dict(environment(), **variables))
    assert (done.returncode != 0) == fails, done.stdout
    return done.stdout


def tool_of(package: str, name: str) -> Path:
    """Return the path of a tool inside a wheel."""
    folder = Path(find_spec(package).origin).parent
    return folder / '.mim' / 'tools' / name


def make_project(folder: Path) -> Path:
    """Write ``configs/`` and ``data/demo`` with its proposals."""
    data = folder / 'data/demo'
    run(folder, sys.executable, tool_of('univip_mm', 'demo/make_data.py'),
        data, '--num-train', 12, '--num-val', 4)
    run(folder, sys.executable,
        tool_of('univip_mm', 'generate_proposals.py'), '--img-prefix',
        data / 'train', '--ann-file', data / 'annotations/train.json',
        '--out', data / 'proposals/train.npz', '--min-size', 32,
        '--max-side', 128)
    # NumPy versions round differently, so that all hosts share one data set.
    shared = Path(os.environ['UNIVIP_SHARED'], 'data')
    if shared.is_dir():
        shutil.rmtree(folder / 'data')
        shutil.copytree(shared, folder / 'data')
    else:
        shutil.copytree(folder / 'data', shared)
    (folder / 'configs').mkdir()
    (folder / 'cpu_group.py').write_text(CPU_GROUP)
    one = CONFIG.format(imports="'univip_mm'", batch_size=4)
    two = CONFIG.format(imports="'cpu_group', 'univip_mm'", batch_size=2)
    (folder / 'configs/mine.py').write_text(one)
    (folder / 'configs/two.py').write_text(two + ON_CPUS)
    return folder


def train(folder: Path, config: str, work_dir: str, *options) -> list:
    """Train with the host's own tools/train.py and return its log lines."""
    run(folder, sys.executable, tool_of(HOST, 'train.py'), config,
        '--work-dir', work_dir, *options)
    return scalars(folder / work_dir)


def scalars(work_dir: Path) -> list:
    """Return the losses of the latest log, one line per iteration."""
    path = max(work_dir.glob('*/vis_data/scalars.json'))
    lines = map(json.loads, path.read_text().splitlines())
    return [line for line in lines if 'loss' in line]


def losses(lines: list) -> list:
    return [{key: value for key, value in line.items() if 'loss' in key}
            for line in lines]
