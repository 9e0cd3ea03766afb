"""Test the package with other versions of its dependencies.

Each row of the matrix gets a temporary environment with this repository's
wheel. In this environment, the core of the tests runs, and a training resumes
from the checkpoints of the other rows. The tool writes one JSON per row and
prints the table of docs/versions.md from all of them.

A row with a JSON does not run again, so an interrupted call can be repeated.
A row takes minutes, and 6 GB of disk while it runs.
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
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

EXAMPLES = '''
examples:
  pip install uv
  python tests/version_matrix.py                 # all rows
  python tests/version_matrix.py --rows py39-torch2.1 --again
  python tests/version_matrix.py --table         # of the finished rows
'''
ROOT = Path(__file__).parents[1]
TORCHVISION = {'2.1.2': '0.16.2', '2.4.1': '0.19.1', '2.6.0': '0.21.0',
               '2.8.0': '0.23.0', '2.11.0': '0.26.0', '2.14.1': '0.29.1'}
COLUMNS = dict(torch='PyTorch', numpy='NumPy',
               opencv_contrib_python_headless='OpenCV',
               mmpretrain='MMPretrain', mmengine='MMEngine',
               setuptools='setuptools')


# Packages of the tests.
TEST_PACKAGES = ('matplotlib', 'hypothesis', 'kornia', 'POT', 'pycocotools',
                 'pyarrow', 'pytest', 'pytest-timeout', 'timm')


class Row(NamedTuple):
    """Versions of one environment.

    Without versions, pip chooses: the wheel's extra "all" in one call.
    """
    python: str
    torch: str = ''
    numpy: str = ''
    opencv: str = ''
    mmpretrain: str = '1.2.0'
    mmengine: str = '0.10.7'
    mmcv: str = '2.1.0'
    yapf: str = ''

    def requirements(self) -> list:
        """Return what pip installs before OpenCV's contrib and the wheel."""
        return [
            f'torch=={self.torch}', f'torchvision=={TORCHVISION[self.torch]}',
            f'numpy=={self.numpy}', f'opencv-python=={self.opencv}',
            f'mmpretrain=={self.mmpretrain}', f'mmengine=={self.mmengine}',
            f'mmcv-lite=={self.mmcv}', 'setuptools<81', f'yapf{self.yapf}',
            'scikit-learn', 'tqdm', 'ijson', 'simplejpeg', *TEST_PACKAGES]


OLDEST_HOST = dict(mmpretrain='1.0.0', mmengine='0.8.3', mmcv='2.0.1',
                   yapf='<0.40.2')
ROWS = {
    'py39-torch2.1': Row('3.9', '2.1.2', '1.26.4', '4.11.0.86'),
    'py310-torch2.1-numpy2': Row('3.10', '2.1.2', '2.2.6', '4.12.0.88'),
    'py310-torch2.4': Row('3.10', '2.4.1', '1.26.4', '4.11.0.86'),
    'py311-torch2.6': Row('3.11', '2.6.0', '2.2.6', '4.12.0.88'),
    'py311-torch2.11': Row('3.11', '2.11.0', '2.4.6', '5.0.0.93'),
    'py310-torch2.1-oldest': Row('3.10', '2.1.2', '1.26.4', '4.11.0.86',
                                 **OLDEST_HOST),
    'py311-torch2.11-oldest': Row('3.11', '2.11.0', '2.4.6', '5.0.0.93',
                                  **OLDEST_HOST),
    'py312-torch2.11': Row('3.12', '2.11.0', '2.4.6', '5.0.0.93'),
    'py312-torch2.4': Row('3.12', '2.4.1', '2.2.6', '4.13.0.92'),
    'py39-torch2.8': Row('3.9', '2.8.0', '2.0.2', '4.12.0.88'),
    'py313-torch2.11': Row('3.13', '2.11.0', '2.4.6', '5.0.0.93'),
    'py311-torch2.14': Row('3.11', '2.14.1', '2.4.6', '5.0.0.93'),
    'py313-torch2.14': Row('3.13', '2.14.1', '2.4.6', '5.0.0.93'),
    'py311-unpinned': Row('3.11'),
    'py313-unpinned': Row('3.13'),
}
TESTS = ('test_registry.py', 'test_io', 'test_models', 'test_datasets',
         'test_engine', 'test_proposals/test_selective_search.py',
         'test_tools/test_train.py')
# These read checkpoints, which is refused with older PyTorch.
FIRST_READER = (2, 6)
READER_TESTS = tuple(f'test_engine/test_{x}.py' for x in (
    'async_runtime_info_hook', 'checkpoint', 'find_checkpoint',
    'non_finite_hook', 'online_probe_hook', 'replay', 'resume',
    'safe_resume_hook', 'untrusted_files')) + (
        'test_tools/test_train.py', )
VERSIONS = '''
import json, platform
from importlib import metadata
versions = {x.metadata["Name"].replace("-", "_"): x.version
            for x in metadata.distributions()}
print(json.dumps(dict(versions, python=platform.python_version())))
'''
# Resumes from every checkpoints/*.pth, or sees that this is refused, then
# writes checkpoints/ROW.pth.
RESUME = '''
import os, sys
from pathlib import Path
from tiny import (
    error_of, make_coco_folder, run_tool, watched, write_config)

row, checkpoints, reads = sys.argv[1], Path(sys.argv[2]), sys.argv[3] == 'True'
folder = make_coco_folder(Path('cross'))
config = write_config(folder)
run_tool('train', config, '--work-dir', folder / 'own')
end = watched(folder / 'own')[-1]['loss']
for path in sorted(checkpoints.glob('*.pth')):
    out = folder / path.stem
    if not reads:
        message = error_of(
            'train', config, '--work-dir', out, '--resume', path)
        assert 'pip install "torch>=2.6"' in message, message
        print('REFUSED', path.stem)
        continue
    run_tool('train', config, '--work-dir', out, '--resume', path)
    lines = watched(out)
    assert [x['iter'] for x in lines] == [4, 5, 6, 7], path
    print('RESUMED', path.stem, abs(lines[-1]['loss'] - end))
os.replace(folder / 'own/epoch_1.pth', checkpoints / f'{row}.pth')
'''


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--work-dir', type=Path, default=ROOT / 'work_dirs/versions',
        help='folder of results, logs and environments (default: '
        '%(default)s)')
    parser.add_argument(
        '--rows', nargs='+', choices=ROWS, default=list(ROWS), metavar='ROW',
        help=f'rows to run, of {", ".join(ROWS)} (default: all)')
    parser.add_argument(
        '--again', action='store_true', help='run finished rows again')
    parser.add_argument(
        '--keep', action='store_true', help='keep the environments')
    parser.add_argument(
        '--table', action='store_true', help='only print the table')
    return parser.parse_args()


def main() -> None:
    """Run the rows and print the table."""
    args = parse_args()
    args.work_dir = args.work_dir.resolve()
    if not args.table:
        if shutil.which('uv') is None:
            raise SystemExit('error: uv is missing, which makes the '
                             "environments: 'pip install uv'")
        (args.work_dir / 'checkpoints').mkdir(parents=True, exist_ok=True)
        rows = [name for name in args.rows if args.again
                or 'versions' not in read_result(args.work_dir, name)]
        for number, name in enumerate(rows, 1):
            print(f'{number}/{len(rows)} {name} ...', flush=True)
            result = run_row(args.work_dir, name)
            if not args.keep:
                shutil.rmtree(args.work_dir / name, ignore_errors=True)
            path = args.work_dir / f'{name}.json'
            path.write_text(json.dumps(result, indent=1))
            print(f'    {describe(result)}', flush=True)
    print(make_table(args.work_dir))


def read_result(work_dir: Path, name: str) -> dict[str, Any]:
    """Return the result of a row, empty if the row did not run."""
    path = work_dir / f'{name}.json'
    return json.loads(path.read_text()) if path.is_file() else {}


def run_logged(log: Path, *command: object, check: bool = False,
               **kwargs) -> subprocess.CompletedProcess:
    """Run a command and append its output to a log."""
    with open(log, 'a') as file:
        done = subprocess.run([str(x) for x in command], text=True,
                              stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, **kwargs)
        file.write(done.stdout)
    if check:
        done.check_returncode()
    return done


def run_row(work_dir: Path, name: str) -> dict[str, Any]:
    """Install a row, test the package there, and return the result."""
    folder, log = work_dir / name, work_dir / f'{name}.log'
    log.unlink(missing_ok=True)
    result = dict(row=name, date=date.today().isoformat(),
                  machine=f'{os.cpu_count()} cores, {platform.machine()}')
    try:
        python = install(ROWS[name], folder, log)
    except subprocess.CalledProcessError as e:
        reason = ' '.join(e.stdout.split())[-300:]
        return dict(result, error=f'cannot be installed: {reason}')
    start = time.time()
    result['versions'] = json.loads(
        subprocess.check_output([python, '-c', VERSIONS], text=True))
    result.update(run_checks(work_dir, name, python, log))
    return dict(result, minutes=round((time.time() - start) / 60, 1))


def install(row: Row, folder: Path, log: Path) -> Path:
    """Make the environment and a copy of the repository for its tests.

    The copy does not contain the package, so the tests import the wheel.

    Returns:
        Path: Python of the environment.

    Raises:
        subprocess.CalledProcessError: A package cannot be installed.
    """
    copy, env = folder / 'copy', folder / 'env'
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(
        '.git', '.venv*', '.*cache', '.hypothesis', 'work_dirs', 'data',
        'build', '__pycache__', '*.egg-info'))
    pip = ['uv', 'pip', 'install', '--no-cache', '--python', env]
    run_logged(log, 'uv', 'venv', '--python', row.python, env, check=True)
    run_logged(log, 'uv', 'build', '--wheel', '--out-dir', folder, copy,
               check=True)
    wheel, = folder.glob('*.whl')
    if row.torch:
        run_logged(log, *pip, *row.requirements(), check=True)
        # mmengine and mmcv require opencv-python. Both packages write the
        # folder cv2, so contrib is installed last.
        run_logged(log, *pip, '--reinstall', '--no-deps',
                   f'opencv-contrib-python-headless=={row.opencv}', check=True)
        run_logged(log, *pip, '--no-deps', wheel, check=True)
    else:
        install_unpinned(wheel, env, log)
    shutil.rmtree(copy / 'univip_mm')
    return env / 'bin/python'


def install_unpinned(wheel: Path, env: Path, log: Path) -> None:
    """Install the wheel as the documentation says, by pip in one call."""
    run_logged(log, 'uv', 'pip', 'install', '--python', env, 'pip', check=True)
    run_logged(log, env / 'bin/python', '-m', 'pip', 'install',
               f'univip-mm[all] @ {wheel.as_uri()}', *TEST_PACKAGES,
               check=True)


def run_checks(work_dir: Path, name: str, python: Path,
               log: Path) -> dict[str, Any]:
    """Import the package, run its tests, and resume from checkpoints."""
    folder = work_dir / name
    report = folder / 'tests.xml'
    options = dict(cwd=folder / 'copy', env=dict(
        os.environ, OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='',
        PYTHONPATH='tests'))
    imported = run_logged(log, python, '-c', 'import univip_mm', **options)
    if imported.returncode:
        error = last_line(imported)
        refusal = re.match(r'\S*PackageError: (.*)', error)
        return (dict(refused=refusal.group(1)) if refusal else
                dict(error=error))
    reads = reads_checkpoints(ROWS[name])
    tested = run_logged(log, python, '-m', 'pytest', f'--junitxml={report}',
                        *(f'tests/{x}' for x in TESTS),
                        *(f'--ignore=tests/{x}' for x in READER_TESTS
                          if not reads), **options)
    if not report.is_file():
        return dict(error=last_line(tested))
    result = count_tests(report)
    resumed = run_logged(log, python, '-c', RESUME, name,
                         work_dir / 'checkpoints', reads, **options)
    result['resumed'] = re.findall(r'^RESUMED (\S+) (\S+)$', resumed.stdout,
                                   re.MULTILINE)
    result['not_resumed'] = re.findall(r'^REFUSED (\S+)$', resumed.stdout,
                                       re.MULTILINE)
    if resumed.returncode:
        result['error'] = last_line(resumed)
    return result


def reads_checkpoints(row: Row) -> bool:
    """Return True if the row's PyTorch can read checkpoints safely."""
    return not row.torch or (
        tuple(map(int, row.torch.split('.')[:2])) >= FIRST_READER)


def last_line(done: subprocess.CompletedProcess) -> str:
    """Return the last line of a command's output."""
    return (done.stdout.strip().splitlines() or ['no output'])[-1]


def count_tests(report: Path) -> dict[str, Any]:
    """Return the passed, skipped and failed tests of a JUnit report."""
    tests = list(ElementTree.parse(report).iter('testcase'))
    failed = [f'{x.get("classname")}::{x.get("name")}' for x in tests
              if x.find('failure') is not None or x.find('error') is not None]
    skipped = sum(x.find('skipped') is not None for x in tests)
    return dict(passed=len(tests) - skipped - len(failed), skipped=skipped,
                failed=failed)


def describe(result: dict) -> str:
    """Return the outcome of a row in words."""
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
    if result.get('not_resumed'):
        return f'{text}; refused to resume, as expected'
    others = [x for x, _ in result['resumed'] if x != result['row']]
    return f'{text}; resumed {len(others)} checkpoints of other rows'


def make_table(work_dir: Path) -> str:
    """Return the results of all finished rows as a Markdown table."""
    lines = [['Python', *COLUMNS.values(), 'result']]
    lines.append(['---'] * len(lines[0]))
    for name in ROWS:
        result = read_result(work_dir, name)
        if result:
            versions = result.get('versions', {})
            lines.append([versions.get(x, '?') for x in ('python', *COLUMNS)]
                         + [describe(result)])
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


if __name__ == '__main__':
    sys.exit(main())
