"""Time the import of univip_mm after its host: the fastest of three runs."""
import json
import os
import subprocess
import sys

from project import HOST

PROGRAM = f'''
import importlib, json, time
def seconds(*names):
    start = time.perf_counter()
    for name in names:
        importlib.import_module(name)
    return time.perf_counter() - start
host = seconds(*('{HOST}.' + part for part in (
    'datasets', 'engine', 'evaluation', 'models', 'visualization')))
print(json.dumps([host, seconds('univip_mm')]))
'''


def main() -> None:
    runs = []
    for _ in range(3):
        said = subprocess.run(
            [sys.executable, '-W', 'ignore', '-c', PROGRAM], check=True,
            capture_output=True, text=True, cwd=os.sep)
        runs.append(json.loads(said.stdout.splitlines()[-1]))
    host, ours = (min(seconds) for seconds in zip(*runs))
    print(f'import of {HOST}: {host:.2f} s; of univip_mm after it: '
          f'{ours:.2f} s')


if __name__ == '__main__':
    main()
