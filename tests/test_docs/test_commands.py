"""Run every command of the README and of docs/.

The commands run unchanged, except for the number of GPUs and epochs, in a
project that has small configs of the same names. Commands in COVERED_BY are
covered by other tests.
"""
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config
from tiny import CONFIGS, ROOT, TINY, make_coco_folder
from warm_python import warm_python

from univip_mm import config_path

PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md',
         *sorted((ROOT / 'docs').glob('*.md'))]
BLOCK = re.compile(r'```(bash|console|python)\n(.*?)```', re.DOTALL)
# Commands that another test (or page) covers.
COVERED_BY = {
    r'make demo': 'tests/test_tools/test_run_demo.py',
    r'make quality': 'tests/test_experiments/test_main.py',
    r'python -m experiments\.byol_comparison':
        'tests/test_experiments/test_main.py',
    r'make (env|test|lint|docs|bench|test-hosts|test-downstream)':
        '.ci/run',
    r'pip install|printf .*c\+\+20|CXX=': 'Makefile',
    r'univip pretrain': 'tests/test_workflow/test_pretrain.py',
    r'univip doctor': 'tests/test_hosts/test_doctor.py',
    r'univip (proposals|train)': 'tests/test_utils/test_command.py',
    r'univip export': 'tests/test_downstream/test_export.py',
    r'univip embed': 'tests/test_downstream/test_embed.py',
    r'mim ': 'tests/hosts/test_training.py',
    r'(PARTITION=\S+ )?bash tools/benchmarks/(mmdetection|FOLDER)/':
        'tests/downstream/test_detection.py',
    r'torchrun .*generate_proposals': 'tests/test_utils/test_distributed.py',
    r'srun .*generate_proposals': 'tests/test_utils/test_distributed.py',
    r'NNODES=2 .*bash tools/dist_train.sh': 'tests/soak/two_nodes.py',
    r'python tools/replay_batch.py': 'tests/test_engine/test_replay.py',
    r'python tools/report.py': 'tests/test_engine/test_report_hook.py',
    r'python tools/convert_proposals.py orl':
        'tests/test_tools/test_convert_proposals.py',
    r'python tools/benchmarks/': 'tests/test_tools/test_benchmarks.py',
    r'python tests/version_matrix.py': 'docs/versions.md',
}
# Replacements: 4 or 8 GPUs become one process, 800 epochs become one.
DONE = set()
SMALLER = [(r'(configs/\S+\.py) [48]\b', r'\1 1'),
           (r'epoch_(800|14)\b', 'epoch_1')]


def commands_of(page: Path) -> list:
    """Return the commands of a page, in order."""
    found = []
    for kind, text in BLOCK.findall(page.read_text()):
        if kind == 'python':
            continue
        if kind == 'console':
            text = '\n'.join(line[2:] for line in text.splitlines()
                             if line.startswith('$ '))
        text = re.sub(r' +#.*|^#.*', '', text, flags=re.MULTILINE)
        found += [' '.join(line.split()) for line in
                  text.replace('\\\n', ' ').splitlines() if line.strip()]
    return found


def elsewhere(command: str) -> bool:
    return any(re.match(pattern, command) for pattern in COVERED_BY)


def here(page: Path) -> list:
    return [x for x in commands_of(page) if not elsewhere(x)]


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    """Create tiny data with COCO's names, and configs of the same names."""
    root = tmp_path_factory.mktemp('docs')
    (root / '.venv').symlink_to(sys.prefix)
    for name in ('tools', 'docs', 'univip_mm'):
        (root / name).symlink_to(ROOT / name)
    coco = make_coco_folder(root / 'data/made')
    target = root / 'data/coco'
    (target / 'annotations').mkdir(parents=True)
    (coco / 'images').rename(target / 'train2017')
    content = json.loads((coco / 'train.json').read_text())
    (target / 'annotations/instances_train2017.json').write_text(
        json.dumps(content))
    (root / 'data/photographs').symlink_to(target / 'train2017')
    (root / 'configs').mkdir()
    (root / 'configs/univip_r50_coco.py').write_text(
        small('univip_r18_coco.py', 'data/coco/',
              'annotations/instances_train2017.json',
              'proposals/train2017.npz', 'train2017/'))
    (root / 'configs/photographs.py').write_text(
        small('univip_r18_coco.py', 'data/', 'train.images.json', 'train.npz',
              'photographs/'))
    demo = small('univip_r18_demo.py', 'data/coco/',
                 'annotations/instances_train2017.json',
                 'proposals/train2017.npz', 'train2017/')
    annotations = [dict(id=x['id'], image_id=x['id'], bbox=[0, 0, 80, 80],
                        category_id=1 + x['id'] // 10 % 2)
                   for x in content['images']]
    halves = dict(train=content['images'][:4], val=content['images'][4:])
    for split, images in halves.items():
        ids = {x['id'] for x in images}
        (target / f'annotations/{split}.json').write_text(json.dumps(dict(
            images=images,
            annotations=[x for x in annotations if x['image_id'] in ids],
            categories=[dict(id=1, name='a'), dict(id=2, name='b')])))
        (target / split).symlink_to(target / 'train2017')
    (root / 'configs/univip_r18_demo.py').write_text(demo + '''
test_dataloader = dict(dataset=dict(datasets=[
    dict(type='CocoMultiLabel', data_root='data/coco/', split=split,
         ann_file=f'annotations/{split}.json',
         data_prefix=dict(img_path=f'{split}/'),
         pipeline={{_base_.test_pipeline}}) for split in ('train', 'val')]))
''')
    return root


def small(base, data_root, ann_file, proposal_file, img_path) -> str:
    """Return the text of a config: tiny network, one epoch."""
    text = TINY.format(base=str(CONFIGS / base), root=data_root, options='')
    text = text[:text.index('param_scheduler')].replace(
        "'univip_mm', 'tiny'", "'univip_mm'")
    text = text.replace("'train.json'", repr(ann_file)).replace(
        "'train.npz'", repr(proposal_file)).replace("'images'",
                                                    repr(img_path))
    if base == 'univip_r18_demo.py':
        text = text.replace("dict(type='OverlapSceneCrop',",
                            "dict(type='OverlapSceneCrop', min_size=64,")
    return text + '''
param_scheduler = [dict(type='ConstantLR', factor=1.0)]
train_cfg = dict(max_epochs=1)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1))
'''


@pytest.mark.parametrize('page', [x for x in PAGES if here(x)],
                         ids=lambda x: x.stem)
def test_page_commands_run(project, page):
    environment = dict(os.environ, CUDA_VISIBLE_DEVICES='',
                       OMP_NUM_THREADS='1')
    environment['PATH'] = os.pathsep.join([
        os.path.dirname(warm_python()), os.path.dirname(sys.executable),
        environment['PATH']])
    prepare(project, page, environment)
    for command in here(page):
        for pattern, replacement in SMALLER:
            command = re.sub(pattern, replacement, command)
        if command not in DONE:  # on an earlier page, in the same project
            run(project, command, environment)
        DONE.add(command)


def prepare(project, page, environment) -> None:
    """Create the files that a page assumes."""
    proposals = project / 'data/coco/proposals/train2017.npz'
    if not proposals.exists():
        run(project, next(x for x in here(ROOT / 'README.md')
                          if 'generate_proposals' in x), environment)
    work_dir = project / 'work_dirs/univip_r50_coco'
    if page.stem == 'downstream' and not work_dir.exists():
        run(project, 'bash tools/dist_train.sh configs/univip_r50_coco.py 1',
            environment)


def run(project, command, environment) -> None:
    done = subprocess.run(['bash', '-ec', command], cwd=project, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env=environment)
    assert done.returncode == 0, f'{command}\n{done.stdout[-3000:]}'


def test_covered_by_names_existing_tests():
    commands = [x for page in PAGES for x in commands_of(page)]
    for pattern, place in COVERED_BY.items():
        if pattern.startswith(('make quality', 'python tests/version')):
            continue  # in running text, not in a code block
        assert (ROOT / place).is_file(), place
        assert any(re.match(pattern, x) for x in commands), pattern


@pytest.mark.parametrize('page', PAGES, ids=lambda x: x.stem)
def test_page_names_existing_tools_and_tests(page):
    for path in re.findall(
            r'(?:python|bash|pytest) ((?:tools|tests|docs)/[\w/.]+)',
            page.read_text()):
        if not any(x in path for x in ('…', 'FOLDER', '/X.py')):
            assert (ROOT / path.rstrip('.')).exists(), path


SNIPPETS = [(page, text) for page in PAGES
            for kind, text in BLOCK.findall(page.read_text())
            if kind == 'python' and ('_base_' in text or '= dict(' in text)]


@pytest.mark.parametrize('page, text', SNIPPETS,
                         ids=lambda x: x.stem if isinstance(x, Path) else '')
def test_config_snippet_loads(tmp_path, page, text):
    if '_base_ =' not in text:
        text = f'_base_ = {config_path("univip_r50_coco.py")!r}\n' + text
    text = re.sub(r"'(cpu_group|spread_loss)', |, '(cpu_group|spread_loss)'",
                  '', text)
    path = tmp_path / 'config.py'
    path.write_text(text)
    config = Config.fromfile(path)
    assert config.model.type == 'UniVIP'
    assert 'univip_mm' in config.custom_imports['imports']
