"""Options of the command line."""
import argparse
from collections.abc import Sequence
from dataclasses import fields
from typing import Optional

from .data import NUM_FITTED
from .settings import LARGE, METHODS, SMALL, Experiment, Run
from .sweep import STUDIES

DESCRIPTION = '''
Does UniVIP learn better than BYOL?

Pre-trains both, and the methods between them, on the same scenes from the
same seeds, and scores the frozen features. Each run writes one result. If a
command is killed, the same command resumes.
'''
PROGRAM = 'python -m experiments.byol_comparison'
RUN_EXAMPLE = f'''
examples:
  {PROGRAM} run --dry-run
  {PROGRAM} run --jobs 2
on a GPU, at a larger scale (data/quality_large, work_dirs/quality_large):
  {PROGRAM} run --large --methods byol univip --jobs 2
another learning rate, with results under another name:
  {PROGRAM} run --methods byol univip --name lr0.4 \\
      --cfg-options optim_wrapper.optimizer.lr=0.4
photographs, scored by neighbours of their objects in other photographs:
  {PROGRAM} run --data-dir data/photographs \\
      --ann-file data/coco128/annotations/instances_train2017.json \\
      --img-prefix data/coco128/train2017 --epochs 2000 --name photographs \\
      --methods random byol univip --seeds 31 32 33 34 35 36 --skip-detection
'''
REPORT_EXAMPLE = f'''
examples:
  {PROGRAM} report --results experiments/byol_comparison/results
  {PROGRAM} report --baseline univip --bootstrap
  {PROGRAM} report --indicators
'''
SWEEP_EXAMPLE = f'''
examples:
  {PROGRAM} sweep univip --jobs 2
  {PROGRAM} sweep byol --jobs 2
  {PROGRAM} sweep univip --report
'''
FIGURES_EXAMPLE = f'''
examples:
  {PROGRAM} figures results work_dirs/results.png
  {PROGRAM} figures neighbours work_dirs/neighbours.jpg \\
      --methods random byol byol_overlap univip --seeds 1
'''
RANKS_EXAMPLE = f'''
example:
  {PROGRAM} ranks --methods byol univip --seeds 11 12 13 --name 50epochs
without a training, with both kinds of initial filters:
  {PROGRAM} ranks --untrained --seeds 100 101 102 103 104 105
'''
INSTANCES_EXAMPLE = f'''
example:
  {PROGRAM} instances --seeds 1
'''


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(
        dest='command', required=True, metavar='COMMAND')

    def add(name: str, text: str, example: str, *groups) -> None:
        command = commands.add_parser(
            name, help=text, description=f'{text[0].upper()}{text[1:]}.',
            epilog=example,
            formatter_class=argparse.RawDescriptionHelpFormatter)
        for group in groups:
            group(command)
        command.set_defaults(parser=command)

    networks = (_add_run_selection, _add_large, _add_data_dir, _add_folders)
    add('run', 'train and evaluate the missing runs, then report',
        RUN_EXAMPLE, _add_run_selection, _add_data, _add_photographs,
        _add_training, _add_detection, _add_folders, _add_large, _add_work)
    add('report', 'print the tables of the results', REPORT_EXAMPLE,
        _add_indicators, _add_large, _add_results)
    add('sweep', 'estimate the effect of every setting', SWEEP_EXAMPLE,
        _add_study, _add_data, _add_training, _add_folders, _add_work)
    add('figures', 'draw the results, or neighbours of objects',
        FIGURES_EXAMPLE, _add_figure, *networks)
    add('ranks', 'print the effective rank of each stage of the networks',
        RANKS_EXAMPLE, _add_untrained, *networks)
    add('instances', 'print the share of instances that show objects',
        INSTANCES_EXAMPLE, _add_run_selection, _add_large, _add_data_dir)
    return parser


def _add_run_selection(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('runs')
    group.add_argument(
        '--methods', nargs='+', choices=METHODS, default=list(METHODS),
        metavar='METHOD', help=f'of {", ".join(METHODS)} (default: all)')
    group.add_argument(
        '--seeds', nargs='+', type=int, default=[1, 2, 3], metavar='N',
        help='(default: 1 2 3)')
    group.add_argument(
        '--name', help='suffix of the result names; required with changed '
        'settings')
    group.add_argument(
        '--cfg-options', nargs='+', default=[], metavar='KEY=VALUE',
        help='change values of the configs')


def _add_large(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--large', action='store_true',
        help='version for a GPU: ResNet-18 of full width, scenes of 128 '
        'pixels (experiments/byol_comparison/configs/large)')


def _add_data_dir(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        '--data-dir', help=f'folder of the data (default: {SMALL.data_dir}; '
        f'with --large {LARGE.data_dir})')


def _add_data(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('data')
    _add_data_dir(group)
    group.add_argument(
        '--num-train', type=int, metavar='N',
        help=f'training scenes (default: {SMALL.num_train}; with --large '
        f'{LARGE.num_train}); classifiers are fitted on the first '
        f'{NUM_FITTED}')
    group.add_argument(
        '--num-val', type=int, default=1000, metavar='N',
        help='test scenes (default: %(default)s)')


def _add_photographs(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('photographs instead of scenes')
    group.add_argument(
        '--ann-file', metavar='JSON',
        help='COCO json with objects; all photographs are for training, and '
        'each object is classified by its neighbours in the others')
    group.add_argument(
        '--img-prefix', metavar='DIR', help='folder of the photographs')


def _add_training(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('training')
    group.add_argument(
        '--epochs', type=int, metavar='N',
        help="epochs of the pre-training (default: the configs')")
    group.add_argument(
        '--float32', action='store_true',
        help='pre-train in float32 instead of bfloat16')


def _add_detection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--skip-detection', action='store_true',
        help='do not fine-tune the detector')


def _add_results(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        '--results', help='folder of the results (default: '
        f'{SMALL.work_dir}/results; with --large {LARGE.work_dir}/results; '
        f'of a sweep {SMALL.work_dir}/sweep)')


def _add_folders(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('folders')
    _add_results(group)
    group.add_argument(
        '--work-dir', help='folder of logs and checkpoints (default: '
        f'{SMALL.work_dir}/runs; with --large {LARGE.work_dir}/runs; of a '
        'sweep runs in the folder of the results)')


def _add_work(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--jobs', type=int, default=1, metavar='N',
        help='runs at a time, one thread each (default: %(default)s)')
    parser.add_argument(
        '--dry-run', action='store_true',
        help='only print the missing runs')


def _add_indicators(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--indicators', action='store_true',
        help='print the correlation of logged values with the scores instead')
    parser.add_argument(
        '--baseline', metavar='METHOD[-NAME]',
        help='compare all results with these runs of the same seed (default: '
        'BYOL of the same name)')
    parser.add_argument(
        '--bootstrap', action='store_true',
        help='intervals of the differences by a bootstrap of the seeds '
        "instead of Student's t")


def _add_untrained(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--untrained', action='store_true',
        help='print the ranks of the untrained networks of the seeds instead')


def _add_study(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'study', choices=STUDIES, help='method whose settings are swept')
    parser.add_argument(
        '--first-seed', type=int, default=101, metavar='N',
        help='seed of the first run; each run has the next seed (default: '
        '%(default)s)')
    parser.add_argument(
        '--report', action='store_true',
        help='only print the table of the finished runs')


def _add_figure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'figure', choices=('results', 'neighbours'),
        help='results: scores and loss curves; neighbours: objects and their '
        'nearest neighbours, by the networks of the first seed')
    parser.add_argument('out', help='image file to write')


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Parse and check the command line."""
    args = build_parser().parse_args(argv)
    _check_values(args)
    if args.command == 'run':
        _check_changes(args)
        _check_photographs(args)
    return args


def _check_values(args: argparse.Namespace) -> None:
    epochs = getattr(args, 'epochs', None)
    if epochs is not None and epochs < 3:
        args.parser.error(f'--epochs is {epochs}: the warm-up takes 2, give '
                          'at least 3')
    if getattr(args, 'jobs', 1) < 1:
        args.parser.error(f'--jobs is {args.jobs}: it must be at least 1')


def _check_changes(args: argparse.Namespace) -> None:
    for option in ('cfg_options', 'float32', 'epochs', 'skip_detection',
                   'ann_file'):
        if getattr(args, option) and not args.name:
            args.parser.error(
                f'--{option.replace("_", "-")} without --name: the results '
                'would look like results of the unchanged configs and scenes; '
                'give --name NAME')


def _check_photographs(args: argparse.Namespace) -> None:
    if bool(args.ann_file) != bool(args.img_prefix):
        args.parser.error('--ann-file and --img-prefix: give both or none')
    data_dir = experiment_of(args).data_dir
    if args.ann_file and data_dir in (SMALL.data_dir, LARGE.data_dir):
        args.parser.error('--ann-file would overwrite the scenes of '
                          f"'{data_dir}': give another --data-dir")


def experiment_of(args: argparse.Namespace) -> Experiment:
    """Return the common settings of the runs."""
    given = {x.name: getattr(args, x.name) for x in fields(Experiment)
             if getattr(args, x.name, None) is not None}
    given['bf16'] = not getattr(args, 'float32', False)
    if args.command == 'sweep':
        given.setdefault('results', f'{SMALL.work_dir}/sweep')
        given.setdefault('work_dir', f'{given["results"]}/runs')
        given['skip_detection'] = True
    return Experiment(**given)


def runs_of(args: argparse.Namespace) -> list[Run]:
    """Return the selected runs, seed by seed."""
    return [Run(method, seed, args.name, tuple(args.cfg_options))
            for seed in args.seeds for method in args.methods]
