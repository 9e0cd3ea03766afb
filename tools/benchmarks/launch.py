"""Run a benchmark from a pre-training checkpoint, by the tools of the package
that it belongs to. The scripts in mmdetection/, mmsegmentation/ and
classification/ call it."""
import argparse
import os

from univip_mm.downstream.launch import command, prepare, slurm_command
from univip_mm.downstream.packages import HOSTS, TOOLS

EPILOG = '''
train starts from the backbone of the checkpoint, which is taken out of it on
the way where it is one of UniVIP or BYOL; test takes what train has made, or,
for a config that trains nothing, the same checkpoint as train. Other options
go to the package's own tool, such as --resume and --amp.
'''


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EPILOG,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('host', choices=list(HOSTS))
    parser.add_argument('tool', choices=TOOLS)
    parser.add_argument('config', help='config of the benchmark')
    parser.add_argument('checkpoint', help='see below')
    parser.add_argument(
        'gpus', type=int,
        help='GPUs, or on a machine without one processes; 0: one process '
        'without a GPU')
    parser.add_argument(
        '--slurm', action='store_true', help='start the processes by srun')
    parser.add_argument(
        '--work-dir',
        help='default: work_dirs/benchmarks/CONFIG/CHECKPOINT')
    parser.add_argument(
        '--cfg-options', nargs='+', metavar='KEY=VALUE',
        help='change values of the config')
    args, args.rest = parser.parse_known_args()
    return args


def main() -> None:
    args = parse_args()
    environment = dict(os.environ)
    try:
        if args.gpus < 0:
            raise ValueError(f'GPUS is {args.gpus}: give 0 or more')
        start = slurm_command if args.slurm else command
        words = start(args.gpus, prepare(args), environment)
    except (ValueError, FileNotFoundError) as e:
        raise SystemExit(f'error: {e}') from None
    if args.gpus == 0:
        environment['CUDA_VISIBLE_DEVICES'] = ''
    try:
        os.execvpe(words[0], words, environment)
    except FileNotFoundError:
        raise SystemExit(f"error: there is no '{words[0]}' on this machine: "
                         'run dist_train.sh or dist_test.sh') from None


if __name__ == '__main__':
    main()
