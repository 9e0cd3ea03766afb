"""Runs: find the missing ones, and train and evaluate them in processes."""
import json
import os
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from univip_mm.io.outputs import check_output_folder

from .data import load_detection_splits, load_splits, make_data
from .report import read_result
from .settings import Experiment, Run
from .workers import run_in_processes


def run_missing(experiment: Experiment, runs: Sequence[Run], jobs: int = 1,
                dry_run: bool = False) -> None:
    """Train and evaluate the runs that have no result yet.

    Args:
        experiment (Experiment): Common settings.
        runs (Sequence[Run]): Runs, in the order to start them.
        jobs (int): Runs at a time. Defaults to 1.
        dry_run (bool): Only print the missing runs. Defaults to False.

    Raises:
        ValueError: A result or the data has other settings.
        ChildProcessError: Some runs failed. The others are finished.
    """
    missing = [run for run in runs if not _has_result(experiment, run)]
    print(f'{len(runs)} runs, {len(runs) - len(missing)} of them done')
    if dry_run:
        for run in missing:
            options = f' ({" ".join(run.options)})' if run.options else ''
            print(f'to do: {run}: {experiment.result_path(run)}{options}')
        print(remaining_time(experiment, missing, jobs))
        return
    if not missing:
        return
    check_output_folder(experiment.results, '--results')
    check_output_folder(experiment.work_dir, '--work-dir')
    make_data(experiment)
    print(f'{remaining_time(experiment, missing, jobs)}; this command can be '
          'killed and repeated')
    failed = _run_all(experiment, missing, jobs)
    if failed:
        raise ChildProcessError(
            f'{len(failed)} of {len(missing)} runs failed: ' + '; '.join(
                f'{run} (see {experiment.log_path(run)})' for run in failed))
    print(f"runs finished: {len(missing)}; results in '{experiment.results}', "
          f"logs and checkpoints in '{experiment.work_dir}'")


def remaining_time(experiment: Experiment, missing: Sequence[Run],
                   jobs: int) -> str:
    """Return how long runs will take, by the finished runs of the folder.

    A run is estimated by the median time per epoch of the finished runs of
    its method, or of all methods if there is none. Detection alone does not
    count.
    """
    finished = [x for x in map(read_result, Path(experiment.results).glob(
        '*-seed*.json')) if x.get('curve')]
    if not finished:
        return f'to do: {len(missing)} runs; no finished run tells how long'
    epochs = experiment.epochs or finished[0]['epochs']
    rates: dict = defaultdict(list)
    for result in finished:
        for key in (result['method'], None):
            # The first results have the time of the training only.
            seconds = result.get('total_seconds', result.get('seconds'))
            rates[key].append(seconds / result['epochs'])
    total = sum(epochs * statistics.median(rates.get(x.method, rates[None]))
                for x in missing if x.method != 'random'
                and not experiment.result_path(x).is_file())
    hours, minutes = divmod(round(total / jobs / 60), 60)
    return (f'to do: {len(missing)} runs, about {hours} h {minutes:02d} min '
            f'with --jobs {jobs}')


def _run_all(experiment: Experiment, runs: list[Run],
             jobs: int) -> list[Run]:
    """Return the runs that failed."""
    from univip_mm.utils.progress import track
    # Read by the libraries of the new processes when they are imported.
    # Large pages save 4 % of a step on a CPU (glibc 2.35 or later).
    os.environ['OMP_NUM_THREADS'] = '1'
    os.environ.setdefault('GLIBC_TUNABLES', 'glibc.malloc.hugetlb=1')
    outcomes = run_in_processes(
        train_and_evaluate, [(experiment, run) for run in runs],
        [experiment.log_path(run) for run in runs], jobs)
    failed, left = [], list(runs)
    with track(outcomes, len(runs), unit='run') as bar:
        for index, succeeded in bar:
            left.remove(runs[index])
            if not succeeded:
                failed.append(runs[index])
            if left:
                bar.write(remaining_time(experiment, left, jobs))
    return failed


def _has_result(experiment: Experiment, run: Run) -> bool:
    """Return True if nothing is left to do for a run."""
    path = experiment.result_path(run)
    if not path.is_file():
        return False
    check_result(experiment, run, path)
    return experiment.skip_detection or 'box_AP50' in read_result(path)


def check_result(experiment: Experiment, run: Run, path: Path) -> None:
    """Raise ValueError if a result was made with other settings.

    Also if its detection is missing, and the network too.
    """
    result = read_result(path)
    wanted = dict(options=list(run.options), bf16=experiment.bf16,
                  large=experiment.large)
    if experiment.epochs is not None:
        wanted['epochs'] = experiment.epochs
    if not experiment.ann_file:
        wanted.update(num_train=experiment.num_train,
                      num_val=experiment.num_val)
    # The first results were written without bf16 and large: both are False.
    other = [f'{key} {result.get(key, False)}, not {value}'
             for key, value in wanted.items()
             if result.get(key, False) != value]
    if other:
        raise ValueError(f"'{path}' has other settings ({other[0]}): give "
                         'another --name or --results')
    if not (experiment.skip_detection or 'box_AP50' in result
            or experiment.backbone_path(run).is_file()):
        raise ValueError(
            f"'{path}' has no detection, and "
            f"'{experiment.backbone_path(run)}' is missing: give "
            '--skip-detection, or delete the result to train again')


def train_and_evaluate(experiment: Experiment, run: Run) -> None:
    """Do what is left of a run: its training and scores, then detection."""
    import torch
    torch.set_num_threads(1)
    splits = load_splits(experiment)
    if not experiment.result_path(run).is_file():
        _train_and_measure(experiment, run, *splits)
    if not experiment.skip_detection:
        _detect(experiment, run, splits[0])


def _train_and_measure(experiment: Experiment, run: Run, train_split,
                       *test_split) -> None:
    """Write the result, without detection, and the backbone."""
    import time

    import torch
    from mmengine.device import get_device
    from mmengine.runner import set_random_seed

    from univip_mm.io.atomic import atomic_write

    from .evaluate import measure
    from .training import load_config, train
    start = time.time()
    cfg = load_config(experiment, run)
    check_work_dir(experiment, cfg)
    set_random_seed(run.seed)
    model, curve = train(run.method, cfg, train_split)
    seconds = time.time() - start
    backbone = model.backbone.to(get_device())
    scores = measure(backbone, model.data_preprocessor, train_split,
                     *test_split)
    with atomic_write(experiment.backbone_path(run)) as file:
        torch.save({key: value.cpu() for key, value in
                    backbone.state_dict().items()}, file)
    _write(experiment, run, dict(
        method=run.method, name=run.name, seed=run.seed,
        epochs=cfg.train_cfg.max_epochs, options=run.options,
        bf16=experiment.bf16, large=experiment.large, seconds=round(seconds),
        total_seconds=round(time.time() - start),
        num_train=len(train_split.images),
        num_val=sum(len(x.images) for x in test_split),
        **scores, curve=curve))


def _detect(experiment: Experiment, run: Run, train_split) -> None:
    """Fine-tune a detector from the backbone, and add its score.

    Few labels and few steps: the case that pre-training is for.
    """
    from mmengine.device import get_device

    from .detection import fine_tune
    from .evaluate import estimate_bn_statistics
    from .training import load_network
    backbone, preprocessor = load_network(experiment, run)
    backbone.to(get_device())
    estimate_bn_statistics(backbone, train_split.images, preprocessor)
    score = fine_tune(
        backbone, preprocessor, *load_detection_splits(experiment),
        train_split.labels.shape[1], epochs=8, seed=run.seed)
    result = read_result(experiment.result_path(run))
    _write(experiment, run, {
        **{key: x for key, x in result.items() if key != 'curve'}, **score,
        'curve': result['curve']})


def _write(experiment: Experiment, run: Run, result: dict) -> None:
    from univip_mm.io.atomic import atomic_write
    with atomic_write(experiment.result_path(run), 'w') as file:
        json.dump(result, file, indent=1)


def check_work_dir(experiment: Experiment, cfg) -> None:
    """Raise ValueError if the work dir belongs to a run with other settings.

    Resuming that run would report wrong results. The settings of a new work
    dir are written to ``settings.json``.
    """
    path = Path(cfg.work_dir) / 'settings.json'
    text = json.dumps(
        dict(config=cfg.to_dict(), num_train=experiment.num_train,
             num_val=experiment.num_val, ann_file=experiment.ann_file),
        indent=1, default=str)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    elif path.read_text() != text:
        raise ValueError(f"'{cfg.work_dir}' belongs to a run with other "
                         'settings: give another --name or --work-dir, or '
                         'delete it')
