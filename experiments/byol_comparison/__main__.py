"""Entry point of the experiment. Each command is a function below."""
import argparse
from collections.abc import Sequence
from typing import Optional

from univip_mm.io.outputs import check_output_file
from univip_mm.utils.errors import one_line_errors

from .options import experiment_of, parse_args, runs_of
from .report import (
    bootstrap,
    indicator_table,
    interval,
    read_results,
    report,
)
from .run import run_missing
from .settings import Experiment
from .sweep import find_results, sweep_runs, sweep_table

# Worker processes import this file, so PyTorch is imported where it is used.


def run(args: argparse.Namespace, experiment: Experiment) -> None:
    """Train and evaluate the missing runs, then print the tables."""
    run_missing(experiment, runs_of(args), args.jobs, args.dry_run)
    if not args.dry_run:
        print(report(read_results(experiment.results)))


def print_report(args: argparse.Namespace, experiment: Experiment) -> None:
    """Print the tables of the results."""
    results = read_results(experiment.results)
    if args.indicators:
        print(indicator_table(results))
        return
    if args.baseline and args.baseline not in results:
        raise ValueError(f"--baseline is '{args.baseline}', but "
                         f"'{experiment.results}' has {', '.join(results)}: "
                         'give one of these')
    print(report(results, args.baseline,
                 bootstrap if args.bootstrap else interval))


def sweep(args: argparse.Namespace, experiment: Experiment) -> None:
    """Run the missing runs of a sweep, then print the effects."""
    runs = sweep_runs(args.study, args.first_seed)
    results = find_results(experiment, runs)
    if not args.report:
        run_missing(experiment, runs, args.jobs, args.dry_run)
        if args.dry_run:
            return
        results = find_results(experiment, runs)
    if not results:
        raise FileNotFoundError(
            f"'{experiment.results}' has no runs of the sweep of "
            f"'{args.study}': repeat the command without --report, or give "
            'another --results')
    print(sweep_table(args.study, runs, results))


def figures(args: argparse.Namespace, experiment: Experiment) -> None:
    """Draw the results, or neighbours by the networks of the first seed."""
    from .figures import plot_neighbours, plot_results
    check_output_file(args.out, 'the figure')
    if args.figure == 'results':
        plot_results(read_results(experiment.results), args.out)
    else:
        first = [x for x in runs_of(args) if x.seed == args.seeds[0]]
        plot_neighbours(experiment, first, args.out)
    print(f'figure: {args.out}')


def ranks(args: argparse.Namespace, experiment: Experiment) -> None:
    """Print the effective rank of the networks, trained or not."""
    from .figures import rank_table, untrained_table
    print(untrained_table(experiment, args.seeds) if args.untrained
          else rank_table(experiment, runs_of(args)))


def instances(args: argparse.Namespace, experiment: Experiment) -> None:
    """Print the share of instances that show objects."""
    from .figures import instance_table
    print(instance_table(experiment, args.seeds[0], tuple(args.cfg_options)))


COMMANDS = dict(
    run=run, report=print_report, sweep=sweep, figures=figures, ranks=ranks,
    instances=instances)


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Run a command; user errors end with a one-line message."""
    args = parse_args(argv)
    with one_line_errors('the same command resumes'):
        COMMANDS[args.command](args, experiment_of(args))


if __name__ == '__main__':
    main()
