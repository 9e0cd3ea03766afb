"""The command ``univip``, and the command lines of the tools."""
import argparse
import difflib
import io
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, Optional

from ..hosts.find_host import check_host
from ..hosts.versions import PackageError
from ..version import __version__
from .errors import one_line_errors

PACKAGE = Path(__file__).parents[1]
TOOLS = PACKAGE / '.mim' / 'tools'
VARIABLE = 'UNIVIP_COMMAND'  # name of the command, for the tool's help
# Commands that need no host.
HOSTLESS = ('doctor', 'proposals', 'import', 'inspect', 'cache')
# Name, tool, and what the command does.
COMMANDS = {
    'pretrain': ('pretrain', 'images to backbone, in one command'),
    'export': ('export', 'backbone for torchvision, timm, ONNX, ...'),
    'embed': ('embed', 'features of images'),
    'report': ('report', 'page about a run, to see whether it works'),
    'doctor': ('doctor', 'check the installation and the machine'),
    'train': ('train', 'train with a config'),
    'test': ('test', 'evaluate frozen features with a config'),
    'proposals': ('generate_proposals', 'search for objects in images'),
    'import': ('convert_proposals', "import ORL's or COCO's proposals"),
    'inspect': ('inspect_proposals', 'statistics of a proposal file'),
    'browse': ('browse_dataset', 'draw what the network will see'),
    'cache': ('cache_pixels', 'decode all images once, into one file'),
    'plot': ('plot_losses', 'draw the losses of a training'),
    'replay': ('replay_batch', 'repeat the step that stopped a training'),
}
EXAMPLE = '''
example:
  univip pretrain photographs --out runs/first --arch resnet18
  univip COMMAND -h lists the options of a command, with an example.
'''


def run(arguments: Optional[Sequence[str]] = None) -> NoReturn:
    """Replace this process by the tool that the first argument names."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ('-h', '--help', 'help'):
        print(_help())
        sys.exit(0 if words else 2)
    if words[0] == '--version':
        print(f'univip_mm {__version__}')
        sys.exit()
    name = words[0]
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        known = f"did you mean '{near[0]}'?" if near else (
            f'choose one of {", ".join(COMMANDS)}')
        sys.exit(f"error: there is no command 'univip {name}': {known}")
    if name not in HOSTLESS:
        with one_line_errors(types=(PackageError, )):
            check_host()
    tool = str(TOOLS / f'{COMMANDS[name][0]}.py')
    os.execve(sys.executable, [sys.executable, tool, *words[1:]],
              {**environment(), VARIABLE: name})


def environment() -> dict[str, str]:
    """Return the environment in which a tool finds this package."""
    env = dict(os.environ)
    folder = PACKAGE.parent
    if folder.name not in ('site-packages', 'dist-packages'):  # a clone
        rest = env.get('PYTHONPATH')
        env['PYTHONPATH'] = f'{folder}{os.pathsep}{rest}' if rest else str(
            folder)
    return env


def make_parser(description: Optional[str],
                examples: str = '') -> argparse.ArgumentParser:
    r"""Return a parser whose help shows the tool as it was called.

    ``examples`` has lines with ``python tools/NAME.py``. In a command of
    ``univip``, they become ``univip COMMAND``.

    From now on, standard output shows what its encoding lacks as ``\u0416``:
    a file name must not end a tool.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors='backslashreplace')
    command = os.environ.get(VARIABLE)
    if command in COMMANDS:
        tool = f'python tools/{COMMANDS[command][0]}.py'
        examples = re.sub(re.escape(tool), f'univip {command}', examples)
    return argparse.ArgumentParser(
        prog=f'univip {command}' if command in COMMANDS else None,
        description=description, epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter)


def _help() -> str:
    lines = [f'  {name:<11}{text}' for name, (_, text) in COMMANDS.items()]
    return ('usage: univip COMMAND ...\n\n'
            'Pre-train image backbones without labels (UniVIP).\n\n'
            'commands:\n' + '\n'.join(lines) + '\n' + EXAMPLE).rstrip()
