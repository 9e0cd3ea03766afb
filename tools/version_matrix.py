"""Run the core of the tests with other versions of Python, PyTorch, NumPy,
OpenCV and the host: for each row an environment, this repository's wheel in
it, its tests, and a training that goes on from the other rows' checkpoints.

Writes a JSON for each row and, from all that are there, a table for
docs/versions.md. A row that is there is not run again. An environment is 5 to
7 GB large and is removed after its row.
"""
import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from itertools import zip_longest
from pathlib import Path
from typing import Any, Optional
from xml.etree import ElementTree

from tqdm import tqdm

EXAMPLES = '''
examples:
  pip install uv
  python tools/version_matrix.py           # all rows; killed, it goes on
  python tools/version_matrix.py --rows py39-torch2.1 --again
  python tools/version_matrix.py --table            # of what was run
'''
ROOT = Path(__file__).parents[1]
TORCHVISION = {'2.1.2': '0.16.2', '2.4.1': '0.19.1', '2.6.0': '0.21.0',
               '2.8.0': '0.23.0', '2.11.0': '0.26.0'}
COLUMNS = dict(torch='PyTorch', numpy='NumPy',
               opencv_contrib_python_headless='OpenCV',
               mmpretrain='MMPretrain', mmengine='MMEngine',
               setuptools='setuptools')


def row(python: str, torch: str, numpy: str, opencv: str,
        mmpretrain: str = '1.2.0', mmengine: str = '0.10.7',
        mmcv: str = '2.1.0', yapf: str = '') -> dict:
    """What is installed."""
    return dict(
        python=python, opencv=opencv, requirements=[
            f'torch=={torch}', f'torchvision=={TORCHVISION[torch]}',
            f'numpy=={numpy}', f'opencv-python=={opencv}',
            f'mmpretrain=={mmpretrain}', f'mmengine=={mmengine}',
            f'mmcv-lite=={mmcv}', 'setuptools<81', f'yapf{yapf}',
            'scikit-learn', 'matplotlib', 'tqdm', 'ijson', 'simplejpeg',
            'hypothesis', 'kornia', 'POT', 'pycocotools', 'pytest',
            'pytest-timeout'])


ROWS = {
    'py39-torch2.1': row('3.9', '2.1.2', '1.26.4', '4.11.0.86'),
    'py310-torch2.1-numpy2': row('3.10', '2.1.2', '2.2.6', '4.12.0.88'),
    'py310-torch2.4': row('3.10', '2.4.1', '1.26.4', '4.11.0.86'),
    'py311-torch2.6': row('3.11', '2.6.0', '2.2.6', '4.12.0.88'),
    'py311-torch2.11': row('3.11', '2.11.0', '2.4.6', '5.0.0.93'),
    'py310-torch2.1-oldest': row('3.10', '2.1.2', '1.26.4', '4.11.0.86',
                                 '1.0.0', '0.8.3', '2.0.1', yapf='<0.40.2'),
    'py311-torch2.11-oldest': row('3.11', '2.11.0', '2.4.6', '5.0.0.93',
                                  '1.0.0', '0.8.3', '2.0.1', yapf='<0.40.2'),
    'py312-torch2.11': row('3.12', '2.11.0', '2.4.6', '5.0.0.93'),
    'py312-torch2.4': row('3.12', '2.4.1', '2.2.6', '4.13.0.92'),
    'py39-torch2.8': row('3.9', '2.8.0', '2.0.2', '4.12.0.88'),
    'py313-torch2.11': row('3.13', '2.11.0', '2.4.6', '5.0.0.93'),
}
TESTS = (
    'test_registry.py', 'test_boxes.py', 'test_trust.py', 'test_models',
    'test_datasets/test_proposal_coco.py',
    'test_datasets/test_epoch_sampler.py', 'test_datasets/test_transforms',
    'test_proposals/test_selective_search.py',
    'test_engine/test_checkpoint.py', 'test_engine/test_safe_resume_hook.py',
    'test_engine/test_config_checks.py',
    'test_engine/test_non_finite_hook.py', 'test_engine/test_resume.py',
    'test_tools/test_train.py')
# These take long; one test of several processes stays.
LEFT_OUT = ('not sigterm and not rank_that_dies and not ranks_decide '
            'and not two_processes_resume')
# Writes checkpoints/ROW.pth, and goes on from each that is there.
CROSS = '''
import os, sys
from pathlib import Path
from tiny import make_coco_folder, run_tool, watched, write_config

row, shared = sys.argv[1], Path(sys.argv[2])
folder = make_coco_folder(Path('cross'))
config = write_config(folder)
run_tool('train', config, '--work-dir', folder / 'own')
end = watched(folder / 'own')[-1]['loss']
for path in sorted(shared.glob('*.pth')):
    out = folder / path.stem
    run_tool('train', config, '--work-dir', out, '--resume', path)
    lines = watched(out)
    assert [x['iter'] for x in lines] == [4, 5, 6, 7], path
    print('RESUMED', path.stem, abs(lines[-1]['loss'] - end))
os.replace(folder / 'own/epoch_1.pth', shared / f'{row}.pth')
'''


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--work-dir', type=Path,
                        default=ROOT / 'work_dirs/versions',
                        help='folder of the results and of the environments '
                        '(default: %(default)s)')
    parser.add_argument('--rows', nargs='+', choices=ROWS, default=list(ROWS),
                        metavar='ROW', help=f'of {", ".join(ROWS)} (default: '
                        'all)')
    parser.add_argument('--again', action='store_true',
                        help='run rows that are there, too')
    parser.add_argument('--keep', action='store_true',
                        help='leave the environments')
    parser.add_argument('--table', action='store_true',
                        help='run nothing, print the table')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if not args.table:
        if shutil.which('uv') is None:
            raise SystemExit("error: uv, which makes the environments and "
                             "finds the Pythons, is missing: 'pip install uv'")
        (args.work_dir / 'checkpoints').mkdir(parents=True, exist_ok=True)
        rows = [name for name in args.rows
                if args.again or 'versions' not in result_of(args, name)]
        with ThreadPoolExecutor(1) as builder:
            # The next row's environment is made while a row is tested.
            made = [builder.submit(install, name, args) for name in rows[:1]]
            for name, following in tqdm(
                    [*zip_longest(rows, rows[1:])], unit='row',
                    mininterval=0):
                said = made.pop().result()
                if following:
                    made.append(builder.submit(install, following, args))
                result = run_row(name, said, args)
                result_file(args, name).write_text(
                    json.dumps(result, indent=1))
                tqdm.write(f'{name}: {outcome(result)}')
    print(table(args))


def result_file(args: argparse.Namespace, name: str) -> Path:
    return args.work_dir / f'{name}.json'


def result_of(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """What became of a row; nothing where it was not run."""
    path = result_file(args, name)
    return json.loads(path.read_text()) if path.is_file() else {}


def run_row(name: str, said: Optional[str],
            args: argparse.Namespace) -> dict[str, Any]:
    """What became of a row, of which :func:`install` said this."""
    folder = args.work_dir / name
    result = dict(row=name, date=date.today().isoformat(),
                  machine=f'{os.cpu_count()} cores, {platform.machine()}')
    if said is not None:
        return dict(result, error=f'cannot be installed: {said}')
    python = folder / 'env/bin/python'
    result['versions'] = json.loads(subprocess.check_output(
        [python, '-c', 'import json, platform\n'
         'from importlib import metadata as m\n'
         'found = {x.metadata["Name"].replace("-", "_"): x.version '
         'for x in m.distributions()}\n'
         'print(json.dumps(dict(found, python=platform.python_version())))'],
        text=True))
    start = time.time()
    result.update(check(name, folder, python, args))
    if not args.keep:
        # Some minutes, on a slow disk.
        subprocess.Popen(['rm', '-rf', folder / 'env'])
    return dict(result, minutes=round((time.time() - start) / 60, 1))


def install(name: str, args: argparse.Namespace) -> Optional[str]:
    """Make the environment and a copy of the repository without the package,
    which comes from a wheel. Returns why it cannot be, or None."""
    row, folder = ROWS[name], args.work_dir / name
    copy, env = folder / 'copy', folder / 'env'
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(
        '.*', 'work_dirs', 'data', 'build', '__pycache__', '*.egg-info'))
    # mmengine and mmcv ask for opencv-python, and contrib has to be last.
    pip = ['uv', 'pip', 'install', '--no-cache', '--python', env]
    with open(args.work_dir / f'{name}.log', 'w') as log:
        for command in (
                ['uv', 'venv', '--python', row['python'], env],
                ['uv', 'build', '--wheel', '--out-dir', folder, copy],
                [*pip, *row['requirements']],
                [*pip, '--reinstall', '--no-deps',
                 f'opencv-contrib-python-headless=={row["opencv"]}'],
                [*pip, '--no-deps', '{wheel}']):
            command = [str(*folder.glob('*.whl')) if x == '{wheel}' else
                       str(x) for x in command]
            done = subprocess.run(command, text=True, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT)
            log.write(done.stdout)
            if done.returncode:
                return ' '.join(done.stdout.split())[-300:]
    shutil.rmtree(copy / 'univip_mm')
    (copy / '_univip_mm_configs.py').unlink()
    return None


def check(name: str, folder: Path, python: Path,
          args: argparse.Namespace) -> dict[str, Any]:
    """Import the package, run its tests, and resume."""
    copy, report = folder / 'copy', folder / 'tests.xml'

    def run(*command) -> subprocess.CompletedProcess:
        done = subprocess.run(
            [str(x) for x in (python, *command)], cwd=copy, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=dict(os.environ, OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='',
                     PYTHONPATH='tests'))
        with open(args.work_dir / f'{name}.log', 'a') as log:
            log.write(done.stdout)
        return done

    imported = run('-c', 'import univip_mm')
    if imported.returncode:
        last = imported.stdout.strip().splitlines()[-1]
        ours = re.match('ImportError: (univip_mm .*)', last)
        return dict(refused=ours.group(1)) if ours else dict(error=last)
    run('-m', 'pytest', f'--junitxml={report}', '-k', LEFT_OUT,
        *(f'tests/{x}' for x in TESTS))
    tests = list(ElementTree.parse(report).iter('testcase'))
    bad = [f'{x.get("classname")}::{x.get("name")}' for x in tests
           if x.find('failure') is not None or x.find('error') is not None]
    skipped = sum(x.find('skipped') is not None for x in tests)
    resumed = run('-c', CROSS, name, args.work_dir.resolve() / 'checkpoints')
    result = dict(
        passed=len(tests) - skipped - len(bad), skipped=skipped, failed=bad,
        resumed=re.findall(r'^RESUMED (\S+) (\S+)$', resumed.stdout, re.M))
    if resumed.returncode:
        result['error'] = resumed.stdout.strip().splitlines()[-1]
    return result


def outcome(result: dict) -> str:
    """What became of a row, in words."""
    if 'refused' in result:
        return f'refused: {result["refused"]}'
    if 'passed' not in result:
        return result['error']
    text = f'{result["passed"]} tests passed'
    if result['skipped']:
        text += f', {result["skipped"]} skipped'
    if result['failed']:
        text += f', {len(result["failed"])} failed'
    if 'error' in result:
        return f'{text}; the training failed: {result["error"]}'
    others = [x for x, _ in result['resumed'] if x != result['row']]
    return f'{text}; resumed {len(others)} checkpoints of other rows'


def table(args: argparse.Namespace) -> str:
    """The table, of what was run, in Markdown."""
    lines = [['Python', *COLUMNS.values(), 'seen']]
    lines.append(['---'] * len(lines[0]))
    for name in ROWS:
        result = result_of(args, name)
        if result:
            found = result.get('versions', {})
            lines.append([found.get('python', '?'),
                          *(found.get(x, '?') for x in COLUMNS),
                          outcome(result)])
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


if __name__ == '__main__':
    sys.exit(main())
