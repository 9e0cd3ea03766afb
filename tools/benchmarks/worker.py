"""One process of a benchmark; tools/benchmarks/launch.py starts it."""
import argparse

from univip_mm.downstream.worker import run_host_tool
from univip_mm.utils.distributed import LAUNCHERS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--launcher', choices=LAUNCHERS, default='none')
    parser.add_argument('--option', action='append', default=[])
    parser.add_argument('host')
    parser.add_argument('tool')
    parser.add_argument('config')
    parser.add_argument('arguments', nargs=argparse.REMAINDER)
    args = parser.parse_args()
    run_host_tool(args.host, args.tool, args.config, args.launcher,
                  args.option, args.arguments)


if __name__ == '__main__':
    main()
