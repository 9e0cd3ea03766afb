"""What moves UniVIP and BYOL: the settings that may matter, all at once.

Each run of quality.py has its own seed and a low or a high value of every
setting, by a two-level fractional factorial design (columns of a Hadamard
matrix). So each run tells about every setting, and the effect of one, the mean
of the runs with its high value less that of the others, rests on all runs;
seeds differ by more than most settings do, and one run for each value would
show the seeds. Once all runs are there, effects of single settings are not
mixed with one another, nor with those of pairs. Killed, the same command goes
on where it was.
"""
import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from quality_report import MEASURES, effects, read_results

QUALITY = Path(__file__).with_name('quality.py')
EXAMPLE = '''
examples:
  python experiments/byol_comparison/sweep.py univip --jobs 2
  python experiments/byol_comparison/sweep.py byol --jobs 2
  python experiments/byol_comparison/sweep.py univip --report
'''


PASSED_ON = {
    '--epochs': 'N', '--data-dir': 'DIR', '--num-train': 'N', '--num-val': 'N'}


class Factor(NamedTuple):
    """A setting of a config, its keys there, and two values of it; without
    keys, the arm of quality.py."""
    title: str
    low: str
    high: str
    keys: tuple[str, ...] = ()


LEARNING_RATE = ('optim_wrapper.optimizer.lr', )
MOMENTUM = Factor('EMA, base_momentum', '0.0015', '0.006',
                  ('model.base_momentum', ))
# A study's factors and the columns of a Hadamard matrix that they follow:
# single bits, and sums of three of them (resolution IV).
STUDIES = dict(
    univip=(16, {
        1: Factor('learning rate', '0.1', '0.3', LEARNING_RATE),
        2: MOMENTUM,
        4: Factor('epsilon', '0.02', '0.1',
                  ('model.instance_loss.epsilon', )),
        8: Factor('weight of scene-instance', '0.25', '1.0',
                  ('model.loss_weights.scene_instance', )),
        7: Factor('weight of instance-instance', '0.5', '2.0',
                  ('model.loss_weights.instance', )),
        11: Factor('K', '2', '4',
                   ('model.fusion_neck.num_instances',
                    'train_dataloader.dataset.pipeline.1.num_instances')),
        13: Factor('instances, pixels', '32', '48',
                   ('train_dataloader.dataset.pipeline.1.instance_size', )),
        14: Factor('views of an instance', '1', '2',
                   ('model.data_preprocessor.instance_views', )),
    }),
    byol=(8, {
        1: Factor('learning rate', '0.05', '0.15', LEARNING_RATE),
        2: MOMENTUM,
        4: Factor('scenes', 'byol', 'byol_overlap'),
    }))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'study', choices=STUDIES, help='whose settings are swept')
    parser.add_argument(
        '--first-seed', type=int, default=101, metavar='N',
        help='of the first run, each has the next (default: %(default)s)')
    parser.add_argument(
        '--results', default='work_dirs/quality/sweep',
        help='folder of the results (default: %(default)s)')
    parser.add_argument(
        '--work-dir', help='folder of logs and checkpoints (default: runs '
        'in that of the results)')
    parser.add_argument(
        '--jobs', type=int, default=1, metavar='N',
        help='runs at a time, one thread each (default: %(default)s)')
    parser.add_argument(
        '--report', action='store_true',
        help='only print the table of what is there')
    parser.add_argument(
        '--dry-run', action='store_true', help='only say what would be done')
    passed_on = parser.add_argument_group('as in quality.py')
    passed_on.add_argument('--bf16', action='store_true')
    for name, metavar in PASSED_ON.items():
        passed_on.add_argument(name, metavar=metavar)
    args = parser.parse_args()
    if args.jobs < 1:
        parser.error(f'--jobs is {args.jobs}: it must be at least 1')
    return args


def design(study: str) -> np.ndarray:
    """(runs, factors) of -1 and 1: the low and the high value."""
    from scipy.linalg import hadamard
    number, factors = STUDIES[study]
    return -hadamard(number)[:, list(factors)]


def commands(args: argparse.Namespace) -> dict[str, list]:
    """The name of each run's result to its options of quality.py."""
    common = ['--bf16'] if args.bf16 else []
    for option in PASSED_ON:
        value = getattr(args, option[2:].replace('-', '_'))
        if value is not None:
            common += [option, value]
    work_dir = args.work_dir or str(Path(args.results) / 'runs')
    found = {}
    for number, levels in enumerate(design(args.study)):
        arm, options = args.study, []
        for factor, level in zip(STUDIES[args.study][1].values(), levels):
            value = factor.low if level < 0 else factor.high
            if factor.keys:
                options += [f'{key}={value}' for key in factor.keys]
            else:
                arm = value
        name, seed = f'sweep{number:02d}', args.first_seed + number
        found[f'{arm}-{name}-seed{seed}'] = [
            '--name', name, '--seeds', str(seed), '--arms', arm,
            '--skip-detection', '--results', args.results, '--work-dir',
            work_dir, *common, '--cfg-options', *options
        ]
    return found


def runs_there(args: argparse.Namespace) -> dict[str, dict]:
    """The results that are there already, by name.

    Raises:
        ValueError: One is of other settings than its name says, or than the
            others are.
    """
    results = {f'{arm}-seed{seed}': result
               for arm, runs in read_results(Path(args.results)).items()
               for seed, result in runs.items()}
    wanted = commands(args)
    runs = {name: results[name] for name in wanted if name in results}
    for name, result in runs.items():
        options = wanted[name]
        first = next(iter(runs.values()))
        if (result['options'] != options[options.index('--cfg-options') + 1:]
                or any(result[key] != first[key]
                       for key in ('epochs', 'bf16', 'num_train'))
                or not args.report and result['bf16'] != args.bf16):
            raise ValueError(f"'{args.results}/{name}.json' is of other "
                             'settings than the sweep: give another '
                             '--results, or delete it')
    return runs


def run_all(args: argparse.Namespace) -> None:
    """Run what has no result yet."""
    from univip_mm.utils.progress import track
    wanted, done = commands(args), runs_there(args)
    missing = {name: options for name, options in wanted.items()
               if name not in done}
    print(f'{len(wanted)} runs, {len(done)} of them done')
    if args.dry_run:
        for options in missing.values():
            print('to do: quality.py', *options)
        return
    failed = []
    with ThreadPoolExecutor(args.jobs) as pool:
        runs = track(pool.map(run, missing.values()), len(missing),
                     unit='run')
        for name, ended in zip(missing, runs):
            if ended.returncode:
                said = ended.stderr.strip().splitlines()
                failed.append(f'{name}: {said[-1]}' if said else
                              f'{name}: exit code {ended.returncode}')
    if failed:
        raise SystemExit(f'error: {len(failed)} runs failed, the first of '
                         f'them {failed[0]}')


def run(options: list) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(QUALITY), *options], capture_output=True,
        text=True, env=dict(os.environ, OMP_NUM_THREADS='1'))


def report(args: argparse.Namespace) -> str:
    """The effects on each measure, as a table in Markdown.

    Raises:
        FileNotFoundError: There are no runs.
    """
    wanted, runs = commands(args), runs_there(args)
    if not runs:
        raise FileNotFoundError(f"'{args.results}' has no runs of "
                                f"'{args.study}': run without --report")
    levels = design(args.study)[[name in runs for name in wanted]]
    measures = {key: title for key, title in MEASURES.items()
                if all(key in result for result in runs.values())}
    columns = [
        list(zip(*effects(levels, np.array([x[key] for x in runs.values()]))))
        for key in measures
    ]
    told = f'{len(runs)} of {len(wanted)} runs'
    if len(runs) < len(wanted):
        told += '; until all are there, effects are mixed with those of pairs'
    lines = [told, '', f'| setting | values | {" | ".join(measures.values())} '
             '|', '|---' * (2 + len(measures)) + '|']
    for factor, cells in zip(STUDIES[args.study][1].values(), zip(*columns)):
        lines.append(f'| {factor.title} | {factor.low} → {factor.high} | '
                     + ' | '.join(f'{x:+.1f} ± {half:.1f}'
                                  for x, half in cells) + ' |')
    return '\n'.join(lines)


def main() -> None:
    args = parse_args()
    try:
        if not args.report:
            run_all(args)
        if not args.dry_run:
            print(report(args))
    except (ValueError, FileNotFoundError) as e:
        raise SystemExit(f'error: {e}') from None


if __name__ == '__main__':
    main()
