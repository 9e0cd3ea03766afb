"""From nothing to a pre-trained backbone: every step of UniVIP, in small.

Draws a data set, finds proposals, pre-trains, takes the backbone out, measures
it beside the same network untrained, and draws pictures. Each step is one of
the project's own commands, which is shown.
"""
import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

from mmengine.config import Config

ROOT = Path(__file__).parents[2]

EXAMPLE = '''
examples:
  python tools/demo/run_demo.py
  python tools/demo/run_demo.py --num-train 200 --num-val 100 --epochs 2
'''
MEASURES = {
    'knn_mAP': 'k-NN, mAP',
    'linear_mAP': 'linear, mAP',
    'knn_balanced_accuracy': 'k-NN, balanced accuracy',
    'linear_balanced_accuracy': 'linear, balanced accuracy',
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--config', default='configs/univip_r18_demo.py',
        help='pre-training config (default: %(default)s)')
    parser.add_argument(
        '--data-dir', default='data/demo',
        help='folder of the data set (default: %(default)s)')
    parser.add_argument(
        '--work-dir', default='work_dirs/demo',
        help='folder of everything else that is made (default: %(default)s)')
    parser.add_argument(
        '--num-train', type=int, default=700, metavar='N',
        help='images to train on (default: %(default)s)')
    parser.add_argument(
        '--num-val', type=int, default=300, metavar='N',
        help='images to evaluate on (default: %(default)s)')
    parser.add_argument(
        '--epochs', type=int, metavar='N',
        help="epochs of pre-training (default: the config's)")
    return parser.parse_args()


def run(title: str, *command: object) -> None:
    """Show a command, run it, and stop with it where it fails."""
    words = [str(word) for word in command]
    print(f'\n=== {title}\n$ python {shlex.join(words)}', flush=True)
    start = time.time()
    outcome = subprocess.run([sys.executable, *words], cwd=ROOT)
    if outcome.returncode:
        raise SystemExit(f'error: {words[0]} ended with exit code '
                         f'{outcome.returncode}; its message stands above')
    print(f'--- {time.time() - start:.0f} s', flush=True)


def options_of(args: argparse.Namespace) -> list:
    """What the command line changes in the config, for --cfg-options."""
    data_root = Path(args.data_dir).as_posix() + '/'
    options = [f'train_dataloader.dataset.data_root={data_root}']
    options += [
        f'test_dataloader.dataset.datasets.{i}.data_root={data_root}'
        for i in range(2)
    ]
    if args.epochs is not None:
        schedulers = Config.fromfile(ROOT / args.config).param_scheduler
        options += [
            f'train_cfg.max_epochs={args.epochs}',
            f'param_scheduler.{len(schedulers) - 1}.end={args.epochs}'
        ]
    return ['--cfg-options', *options]


def show_summary(work_dir: Path, backbone: Path, seconds: float) -> None:
    """Results beside those of the untrained network, and where all lies."""
    trained, untrained = (
        json.loads((ROOT / work_dir / name / 'metrics.json').read_text())
        for name in ('trained', 'untrained'))
    print(f'\n{"=" * 62}\nFrozen features of the validation images, percent\n')
    print(f'{"":28}{"untrained":>11}{"UniVIP":>11}{"":>4}chance')
    for name, label in MEASURES.items():
        key = f'probe/{name}'
        chance = (trained['probe/chance_mAP'] if name.endswith('mAP') else 50)
        print(f'{label:28}{untrained[key]:>11.1f}{trained[key]:>11.1f}'
              f'{chance:>10.1f}')
    print(f'''
backbone      {backbone}
checkpoints   {work_dir}/pretrain
scenes        {work_dir}/scenes/scenes_001.png
loss curves   {work_dir}/losses.png
all of it in {seconds / 60:.1f} minutes''')


def main() -> None:
    args = parse_args()
    start = time.time()
    work_dir, data_dir = Path(args.work_dir), Path(args.data_dir)
    options = options_of(args)
    pretrain = work_dir / 'pretrain'
    run('A data set: scenes of several objects', 'tools/demo/make_data.py',
        data_dir, '--num-train', args.num_train, '--num-val', args.num_val)
    rules = Config.fromfile(ROOT / args.config).proposal_rules
    run('Proposals: selective search and the three rules',
        'tools/generate_proposals.py', '--img-prefix', data_dir / 'train',
        '--ann-file', data_dir / 'annotations/train.json', '--out',
        data_dir / 'proposals/train.npz', *[
            word for name, value in rules.items()
            for word in (f'--{name.replace("_", "-")}', value)
        ], '--max-side', 128)
    run('A look at what the network will see', 'tools/browse_dataset.py',
        args.config, '--output-dir', work_dir / 'scenes', *options)
    run('Pre-training', 'tools/train.py', args.config, '--work-dir', pretrain,
        *options)
    checkpoint = (ROOT / pretrain / 'last_checkpoint').read_text().strip()
    checkpoint = pretrain / Path(checkpoint).name
    backbone = work_dir / 'univip_r18_demo_backbone.pth'
    run('The backbone, for any config of mmdet, mmseg or mmpretrain',
        'tools/extract_backbone.py', checkpoint, backbone)
    for name, words in dict(untrained=[], trained=[checkpoint]).items():
        run(f'What the {name} network sees: k-NN and linear classifiers',
            'tools/test.py', args.config, *words, '--work-dir',
            work_dir / name, '--out', work_dir / name / 'metrics.json',
            *options)
    run('The curves of the three losses', 'tools/plot_losses.py', pretrain,
        '--out', work_dir / 'losses.png')
    show_summary(work_dir, backbone, time.time() - start)


if __name__ == '__main__':
    main()
