"""Pre-train a backbone from a folder of images, in one call."""
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union

from mmengine.config import Config

from ..downstream.export import Exported, export_backbone
from ..downstream.export_names import to_torchvision
from ..engine.initial_weights import save_initial_weights
from ..io.atomic import PathLike
from ..io.data_sources import Source, check_outside
from ..io.files import read_json
from ..io.outputs import check_output_folder
from ..io.work_dir_lock import work_dir_lock
from ..proposals import generate_proposals
from ..proposals.command_line import describe_counts, describe_search
from ..utils.distributed import (
    broadcast,
    leave,
    rank_and_world_size,
    start_gloo,
)
from ..utils.text import printable, size_text
from ..visualization import plot_loss_curves
from ..visualization.report import write_report
from .config_file import Settings, checkpoint_bytes, is_edited, write_config
from .console import count, print_choices, say
from .launch import TrainingError, train
from .plan import Plan, Request, final_settings, make_plan, read_init
from .recipe import expectation
from .run_folder import RunFolder, digest_of_images, write_record
from .views import draw_views

ADVICE = 'repeat the command to go on'


class Result(NamedTuple):
    """Files of a finished run, and its numbers.

    Attributes:
        out (Path): The output folder.
        backbone (Path): The backbone, for the OpenMMLab packages;
            ``univip_mm.export`` writes other formats.
        checkpoint (Path): The last checkpoint of the training.
        config (Path): The config, for every tool of MMEngine.
        report (Path): The report, for a browser.
        images (int): Number of images that were used.
        unreadable (int): Number of images that cannot be read, listed in
            ``OUT/unreadable.txt``.
        snippet (str): Python that loads the backbone.
    """
    out: Path
    backbone: Path
    checkpoint: Path
    config: Path
    report: Path
    images: int
    unreadable: int
    snippet: str


def pretrain(data: Union[Source, Sequence[Source]], out: PathLike, *,
             arch: str = 'resnet50', init: Optional[PathLike] = None,
             init_partial: bool = False, epochs: Union[int, str] = 'auto',
             batch_size: Union[int, str] = 'auto',
             devices: Union[int, str] = 'auto',
             max_side: Optional[int] = None, resume: bool = False,
             overrides: Optional[Mapping[str, Any]] = None
             ) -> Optional[Result]:
    """Pre-train a backbone with UniVIP on unlabelled images.

    The call lists the images, searches for objects in them, writes a config,
    trains, and writes the backbone and a report to ``out``. A killed call is
    resumed by the same call, at any stage. In the processes of torchrun or
    srun, call this function in all of them.

    Args:
        data (str or PathLike or tuple or Sequence): A folder of images with
            its subfolders, an archive, a COCO json with its folder, as a
            pair or as 'JSON:FOLDER', or a sequence of these.
        out (str or PathLike): Output folder, new or of the same call.
        arch (str): Name of the backbone, such as 'resnet50', 'vit_small' or
            'timm/NAME'. Defaults to 'resnet50'.
        init (str or PathLike, optional): File of weights to start from.
        init_partial (bool): Accept weights that fit only in part. Defaults
            to False.
        epochs (int or str): Number of epochs, or 'auto'.
        batch_size (int or str): Images of a step on all devices, or 'auto'.
        devices (int or str): 'auto', a number of GPUs, indices as '0,2',
            'cpu', or 'cpu:N'.
        max_side (int, optional): Search large images in a copy with this
            longer side, in pixels. By default, only images of more than 2
            megapixels are searched in a copy.
        resume (bool): Go on with a begun training although options or images
            have changed. Not needed for the same call. Defaults to False.
        overrides (Mapping, optional): Values of the config by dotted key,
            such as ``{'optim_wrapper.optimizer.lr': 0.1}``.

    Returns:
        Result, optional: The files, or None on all ranks but the first.

    Raises:
        FileNotFoundError: There are no images, or a file is missing.
        ValueError: An option is wrong, ``out`` has other content or is in
            use, or no image can be read.
        ImportError: A package is missing.
        OSError: A file cannot be written.
        TrainingError: The training did not finish. The log is
            ``OUT/log.txt``.
    """
    request = Request(data, arch, init, init_partial, epochs, batch_size,
                      devices, max_side, dict(overrides or {}))
    run, begin = RunFolder(out), time.time()
    with ExitStack() as stack:
        start_gloo(request.launcher, timedelta(days=30), advice=ADVICE)
        is_first = rank_and_world_size()[0] == 0
        plan = _on_first_rank(lambda: _prepare(run, request, resume, stack))
        if plan.is_finished:
            if is_first:
                say('finished', 'all epochs are done; to train longer, repeat '
                    'the command with more --epochs and --resume')
            _on_first_rank(lambda: _update_config(run, request, plan))
            leave()
        else:
            _search(run, plan)
            settings, has_begun = _on_first_rank(
                lambda: _write_run(run, request, plan))
            leave()  # the training processes form a group of their own
            try:
                train(run, settings.devices, request.launcher,
                      has_begun, settings.choices['steps'].value,
                      settings.choices['batch size'].value, is_first)
            except (TrainingError, KeyboardInterrupt):
                if is_first:
                    _report_end(run)
                raise
        if not is_first:
            return None
        result = _finish(run)
        say('done', f'in {timedelta(seconds=round(time.time() - begin))}')
        print(f'\n{result.snippet}', flush=True)
        return result


def _on_first_rank(function: Callable[[], Any]) -> Any:
    """Run a function on rank 0; return its value, or end, on all ranks."""
    if rank_and_world_size()[0] != 0:
        outcome = broadcast(None)
        if isinstance(outcome, Exception):
            raise SystemExit(1)  # rank 0 reports the error
        return outcome
    try:
        outcome = function()
    except Exception as e:  # the other ranks must not wait
        broadcast(ValueError(str(e)))
        raise
    return broadcast(outcome)


def _prepare(run: RunFolder, request: Request, resume: bool,
             stack: ExitStack) -> Plan:
    """Lock the folder, list the images, and check all options."""
    _check_name(run.path)
    check_outside(run.path, '--out', request.data)
    check_output_folder(run.path, '--out')
    stack.enter_context(work_dir_lock(run.path, '--out'))
    plan = make_plan(run, request, resume)
    if '{{' in plan.folder:
        raise ValueError(f"the name of the images '{printable(plan.folder)}' "
                         "has '{{', which a config replaces: rename it")
    if plan.earlier is None:  # from now on, the folder is ours
        write_record(run, dict(request=request.to_dict(),
                               folder=os.path.realpath(plan.folder)))
    say('images', f"{count(len(plan.images), 'image')} below '{plan.folder}'; "
        f'the median of their shorter sides is {plan.side:.0f} pixels')
    if text := expectation(len(plan.images)):
        say('', text)
    if plan.init_report:
        say('weights', plan.init_report)
    return plan


def _check_name(path: Path) -> None:
    """Raise ValueError if OUT/config.py could not contain its folder."""
    text = str(path)
    wrong = next((x for x in ("'", '\\', '\n', '\r', '{{') if x in text), None)
    if wrong is None and any('\ud800' <= x <= '\udfff' for x in text):
        wrong = 'bytes that are not UTF-8'
    if wrong is not None:
        raise ValueError(f"--out '{printable(text)}' contains "
                         f'{printable(wrong)}: choose another name')


def _search(run: RunFolder, plan: Plan) -> None:
    """Search for proposals, and report their number."""
    is_first = rank_and_world_size()[0] == 0
    if is_first and not run.proposals.exists():
        for line in describe_search(plan.images, plan.search):
            say('search', line)
    outcome = generate_proposals(
        plan.images, plan.folder, run.proposals, plan.search, 'images.json',
        list_file=run.images)
    if is_first:
        say('proposals', describe_counts(run.proposals))
        if outcome.unreadable:
            say('unreadable', f"{count(len(outcome.unreadable), 'file')}, "
                f"not used; listed in '{_shown(run.unreadable)}'")


def _write_config(run: RunFolder, request: Request,
                  plan: Plan) -> tuple[Settings, Config]:
    """Choose the settings, and write the config and the record."""
    images = read_json(run.images)['images']
    settings, cfg = final_settings(run, request, plan, images)
    record = dict(
        plan.earlier or {}, request=request.to_dict(),
        images=digest_of_images(plan.images), number=len(images),
        folder=os.path.realpath(plan.folder), devices=plan.devices.count,
        choices=[choice._asdict() for choice in settings.choices.values()])
    if request.init is not None and not run.has_begun():
        save_initial_weights(read_init(request, plan.architecture), run.init)
    if is_edited(run):
        say('config', f"'{_shown(run.config)}' was changed by you, and is "
            'used as it is')
    else:
        write_config(cfg, settings, run)
    write_record(run, record)
    return settings, cfg


def _update_config(run: RunFolder, request: Request, plan: Plan) -> None:
    """Write the config of a finished run if the options have changed.

    Otherwise config and record describe the machine that has trained it.
    """
    before = (plan.earlier or {}).get('request')
    if before != request.to_dict() or not run.config.exists():
        _write_config(run, request, plan)


def _write_run(run: RunFolder, request: Request,
               plan: Plan) -> tuple[Settings, bool]:
    """Write all that a training needs; return whether it has begun."""
    settings, cfg = _write_config(run, request, plan)
    print_choices(settings)
    _check_disk(run, checkpoint_bytes(cfg))
    draw_views(run)
    say('views', f"'{_shown(run.views)}' shows what the network will see")
    say('training', f"log in '{_shown(run.log)}', report in "
        f"'{_shown(run.report)}'")
    return settings, run.has_begun()


def _shown(path: Path) -> str:
    """Return a path for the user, relative if the file is below here."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith('..') else relative


def _check_disk(run: RunFolder, size: int) -> None:
    """Raise ValueError if checkpoints of ``size`` bytes do not fit."""
    needed = 4 * size  # three are kept while the next one is written
    free = shutil.disk_usage(run.path).free
    if free < needed and not run.has_begun():
        raise ValueError(
            f"the disk of --out '{printable(run.path)}' has "
            f'{size_text(free)} free, but the checkpoints need '
            f'{size_text(needed)}: free disk space, or choose another --out')


def _report_end(run: RunFolder) -> None:
    """Write in the report that the training has stopped."""
    try:
        write_report(run.path, 'stopped')
    except (ValueError, OSError):
        pass  # it had no step, or the disk is full


def _finish(run: RunFolder) -> Result:
    """Write the backbone, the curves and the report."""
    path, done = run.latest()
    epochs = Config.fromfile(run.config).train_cfg.max_epochs
    if done < epochs:
        raise TrainingError(f'the training was stopped after {done} of '
                            f'{epochs} epochs: {ADVICE}')
    exported = export_backbone(path, run.backbone)
    plot_loss_curves(run.checkpoints, run.losses)
    write_report(run.path)
    for name in ('backbone', 'losses', 'report'):
        say(name, f"'{_shown(getattr(run, name))}'")
    unreadable = 0
    if run.unreadable.exists():
        with open(run.unreadable, encoding='utf-8') as file:
            unreadable = sum(1 for _ in file)
    return Result(run.path, run.backbone, Path(path), run.config, run.report,
                  len(read_json(run.images)['images']), unreadable,
                  _snippet(run, exported))


def _snippet(run: RunFolder, exported: Exported) -> str:
    """Return Python that loads the backbone, in torchvision if it can."""
    if 'conv1.weight' not in exported.weights:  # not with timm's prefix
        return exported.snippet
    try:
        name = to_torchvision(exported.weights, exported.config).name
    except ValueError:
        return exported.snippet
    return (f'import torch, torchvision\nmodel = torchvision.models.{name}(); '
            f'model.load_state_dict(torch.load({_shown(run.backbone)!r}, '
            "weights_only=True)['state_dict'], strict=False)")
