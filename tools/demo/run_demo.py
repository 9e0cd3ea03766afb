"""Run every step of UniVIP on a small scale, without any download.

The demo makes a data set, finds proposals, pre-trains, extracts the backbone,
compares the backbone with the untrained one, and plots the losses. Every
step is a command of this project and is printed before it runs.
"""
import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

from mmengine.config import Config

from univip_mm.io.outputs import check_output_folder
from univip_mm.utils.errors import one_line_errors

ROOT = Path(__file__).parents[2]
EXAMPLES = '''
examples:
  python tools/demo/run_demo.py
  python tools/demo/run_demo.py --num-train 200 --num-val 100 --epochs 2
'''
METRICS = dict(knn_mAP='k-NN, mAP', linear_mAP='linear, mAP',
               knn_balanced_accuracy='k-NN, balanced accuracy',
               linear_balanced_accuracy='linear, balanced accuracy')


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('--config', default='configs/univip_r18_demo.py',
        help='pre-training config (default: %(default)s)')
    add('--data-dir', type=Path, default='data/demo',
        help='folder of the data set (default: %(default)s)')
    add('--work-dir', type=Path, default='work_dirs/demo',
        help='folder of all other output (default: %(default)s)')
    add('--num-train', type=int, default=700, metavar='N',
        help='training images (default: %(default)s)')
    add('--num-val', type=int, default=300, metavar='N',
        help='validation images (default: %(default)s)')
    add('--epochs', type=int, metavar='N',
        help="epochs of pre-training (default: the config's)")
    return parser.parse_args()


def cfg_options(args: argparse.Namespace, cfg: Config) -> list:
    """Return ``--cfg-options`` for the data folder and the epochs."""
    data_root = f'{args.data_dir.as_posix()}/'
    options = [f'{key}.data_root={data_root}' for key in (
        'train_dataloader.dataset', 'test_dataloader.dataset.datasets.0',
        'test_dataloader.dataset.datasets.1')]
    if args.epochs is not None:
        last = len(cfg.param_scheduler) - 1
        options += [f'train_cfg.max_epochs={args.epochs}',
                    f'param_scheduler.{last}.end={args.epochs}']
    return ['--cfg-options', *options]


def run(step: int, title: str, *command: object) -> None:
    """Print and run a command of the project; exit if it fails."""
    words = [str(word) for word in command]
    print(f'\n=== {step}/8 {title}\n$ python {shlex.join(words)}', flush=True)
    start = time.time()
    done = subprocess.run([sys.executable, *words], cwd=ROOT)
    if done.returncode:
        raise SystemExit(f'error: {words[0]} ended with exit code '
                         f'{done.returncode}: see its message above')
    print(f'--- {time.time() - start:.0f} s', flush=True)


def prepare(args: argparse.Namespace, cfg: Config, options: list) -> None:
    """Make the data set and its proposals, and draw some training views."""
    data = args.data_dir
    run(1, 'Data set: scenes of several objects', 'tools/demo/make_data.py',
        data, '--num-train', args.num_train, '--num-val', args.num_val)
    rules = [word for name, value in cfg.proposal_rules.items()
             for word in (f'--{name.replace("_", "-")}', value)]
    run(2, 'Proposals: selective search and the three rules',
        'tools/generate_proposals.py', '--img-prefix', data / 'train',
        '--ann-file', data / 'annotations/train.json',
        '--out', data / 'proposals/train.npz', *rules, '--max-side', 128)
    run(3, 'Training views', 'tools/browse_dataset.py', args.config,
        '--output-dir', args.work_dir / 'scenes', *options)


def train_and_evaluate(args: argparse.Namespace, options: list) -> Path:
    """Pre-train, extract and evaluate, and return the backbone's file."""
    work_dir = args.work_dir
    pretrain = work_dir / 'pretrain'
    run(4, 'Pre-training', 'tools/train.py', args.config,
        '--work-dir', pretrain, *options)
    last = (ROOT / pretrain / 'last_checkpoint').read_text().strip()
    checkpoint = pretrain / Path(last).name
    backbone = work_dir / 'univip_r18_demo_backbone.pth'
    run(5, 'Backbone for configs of mmdet, mmseg and mmpretrain',
        'tools/extract_backbone.py', checkpoint, backbone)
    for step, name, weights in ((6, 'untrained', []),
                                (7, 'trained', [checkpoint])):
        run(step, f'k-NN and linear classifiers on the {name} network',
            'tools/test.py', args.config, *weights, '--work-dir',
            work_dir / name, '--out', work_dir / name / 'metrics.json',
            *options)
    run(8, 'Curves of the three losses', 'tools/plot_losses.py', pretrain,
        '--out', work_dir / 'losses.png')
    return backbone


def print_summary(work_dir: Path, backbone: Path, seconds: float) -> None:
    """Print the metrics of both networks and the paths of the results."""
    trained, untrained = (
        json.loads((ROOT / work_dir / name / 'metrics.json').read_text())
        for name in ('trained', 'untrained'))
    print(f'\n{"=" * 62}\nFrozen features of the validation images, percent\n')
    print(f'{"":28}{"untrained":>11}{"UniVIP":>11}{"":>4}chance')
    for name, label in METRICS.items():
        before, after = untrained[f'probe/{name}'], trained[f'probe/{name}']
        chance = trained['probe/chance_mAP'] if name.endswith('mAP') else 50
        print(f'{label:28}{before:>11.1f}{after:>11.1f}{chance:>10.1f}')
    print(f'''
backbone      {backbone}
checkpoints   {work_dir}/pretrain
scenes        {work_dir}/scenes/scenes_001.png
loss curves   {work_dir}/losses.png
total time    {seconds / 60:.1f} minutes''')


def main() -> None:
    """Run all steps and print a summary."""
    args = parse_args()
    start = time.time()
    with one_line_errors():
        check_output_folder(ROOT / args.work_dir, '--work-dir')
        cfg = Config.fromfile(ROOT / args.config)
    options = cfg_options(args, cfg)
    prepare(args, cfg, options)
    backbone = train_and_evaluate(args, options)
    print_summary(args.work_dir, backbone, time.time() - start)


if __name__ == '__main__':
    main()
