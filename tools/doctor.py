"""Check the installation and the machine, and print what fixes each fault.

The exit code is 1 if a pre-training cannot work.
"""
import argparse
import json
import os
import sys

USER_ENV = dict(os.environ)
os.environ['UNIVIP_HOST'] = 'none'  # see univip_mm/__init__.py

from univip_mm.hosts.doctor import FAIL, WARN, examine
from univip_mm.utils.command import make_parser
from univip_mm.version import __version__

EXAMPLE = '''
example:
  python tools/doctor.py
'''


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__, EXAMPLE)
    parser.add_argument('--json', action='store_true',
                        help='print the findings as JSON')
    return parser.parse_args()


def main() -> None:
    """Print one line per finding."""
    args = parse_args()
    if not args.json:
        python = '.'.join(map(str, sys.version_info[:3]))
        print(f'univip_mm {__version__}, Python {python}, {sys.prefix}')
    # find_host reads the user's value.
    os.environ.pop('UNIVIP_HOST')
    if 'UNIVIP_HOST' in USER_ENV:
        os.environ['UNIVIP_HOST'] = USER_ENV['UNIVIP_HOST']
    findings = []
    for finding in examine(USER_ENV):
        findings.append(finding)
        if not args.json:
            print(finding, flush=True)
    if args.json:
        print(json.dumps([x._asdict() for x in findings], indent=1))
    levels = [x.level for x in findings]
    if not args.json:
        print(f'{levels.count(FAIL)} faults, {levels.count(WARN)} warnings')
    sys.exit(FAIL in levels)


if __name__ == '__main__':
    main()
