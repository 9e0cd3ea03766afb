"""From the options and the images of a call to the settings of its run."""
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Optional, Union

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from ..engine.architectures import Architecture, architecture_options
from ..engine.config import parts_of_type
from ..engine.initial_weights import InitialWeights, read_initial_weights
from ..hosts.versions import reader_refusal
from ..io.atomic import PathLike
from ..io.boxes import ProposalRules
from ..io.coco_json import image_path
from ..io.configs import config_path
from ..io.data_sources import read_sources
from ..io.images import read_size
from ..proposals import Search
from ..proposals.earlier import keep_ids
from ..proposals.selective_search import check_opencv
from ..registry import MODELS
from ..utils.progress import track
from ..utils.text import excerpt, printable
from .config_file import (
    BASE,
    RULES,
    Settings,
    build_base,
    build_config,
    check_built,
    read_edited,
)
from .devices import find_devices
from .recipe import (
    Choice,
    Devices,
    choose_batch_size,
    choose_epochs,
    choose_learning_rate,
    choose_min_size,
    choose_momentum,
    choose_warmup,
    choose_workers,
    steps_per_epoch,
)
from .run_folder import (
    RunFolder,
    check_same_folder,
    check_same_run,
    digest_of_images,
    read_record,
)

# Networks that the tests trace as one graph.
TRACED = ('resnet', 'vit_')
SIDE_OF_UNKNOWN = 480.  # COCO's median, if no size is known


@dataclass(frozen=True)
class Request:
    """Options of a call, as :func:`~univip_mm.workflow.pretrain.pretrain`.

    Raises:
        ValueError: A number is not positive.
    """
    data: Any
    arch: str = 'resnet50'
    init: Optional[PathLike] = None
    init_partial: bool = False
    epochs: Union[int, str] = 'auto'
    batch_size: Union[int, str] = 'auto'
    devices: Union[int, str] = 'auto'
    max_side: Optional[int] = None
    overrides: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ('epochs', 'batch_size', 'max_side'):
            value = getattr(self, name)
            if value in ('auto', None):
                continue
            if type(value) is not int or value < 1:
                raise ValueError(
                    f'--{name.replace("_", "-")} is {value!r}: give a whole '
                    "number from 1, or leave the option out")

    @property
    def init_path(self) -> Optional[str]:
        """Absolute path, or URL, of the weights; None for random weights."""
        if self.init is None:
            return None
        path = os.fspath(self.init)
        return path if '://' in path else os.path.abspath(
            os.path.expanduser(path))

    @property
    def launcher(self) -> str:
        """Launcher that started this process: none, pytorch or slurm."""
        if 'TORCHELASTIC_RUN_ID' in os.environ:
            return 'pytorch'
        tasks = os.environ.get('SLURM_STEP_NUM_TASKS', '1')
        return 'slurm' if int(tasks) > 1 else 'none'

    def to_dict(self) -> dict[str, Any]:
        """Return the options that a begun training cannot change silently.

        The devices can change: the batch size is the one of all devices.
        """
        return dict(
            arch=self.arch, init=self.init_path,
            epochs=self.epochs, batch_size=self.batch_size,
            init_partial=self.init_partial, max_side=self.max_side,
            set={key: repr(x) for key, x in self.overrides.items()})


class Plan(NamedTuple):
    """All that a proposal search needs, and what an earlier call has left.

    Attributes:
        folder (str): Folder of the images.
        images (list[dict]): As ``images`` of a COCO json.
        side (float): Median of the shorter sides, in pixels.
        search (Search): Search for proposals.
        devices (Devices): Devices of the training.
        architecture (Architecture): The network.
        init_report (str, optional): How the weights of ``--init`` fit.
        earlier (dict, optional): Record of an earlier call.
        kept (dict[str, Any]): Values of a begun training by name.
        is_finished (bool): All epochs are done.
    """
    folder: str
    images: list[dict]
    side: float
    search: Search
    devices: Devices
    architecture: Architecture
    init_report: Optional[str]
    earlier: Optional[dict]
    kept: dict[str, Any]
    is_finished: bool = False


def make_plan(run: RunFolder, request: Request, resume: bool) -> Plan:
    """List the images and check all options, before the long search.

    Raises:
        FileNotFoundError: There are no images, or a file is missing.
        ValueError: An option is wrong, ``run`` is another run, or this
            PyTorch could not write the backbone.
        ImportError: OpenCV has no selective search.
    """
    if refusal := reader_refusal(torch.__version__):
        raise ValueError(refusal)
    earlier = read_record(run)
    devices = find_devices(request.devices)
    if request.launcher != 'none':
        devices = _launched(devices, request)
    architecture = architecture_options(request.arch)
    init_report = None
    if request.init is not None and not run.has_begun():
        init_report = read_init(request, architecture, True).report
    check_opencv()
    folder, images = read_sources(request.data)
    images = _with_sizes(folder, keep_ids(images, run.proposals))
    kept = {}
    if earlier is not None:
        check_same_folder(run, earlier, folder, images, resume)
    if run.has_begun() and earlier is not None:
        check_same_run(run, earlier, request.to_dict(),
                       digest_of_images(images), resume)
        kept = {x['name']: x['value'] for x in earlier.get('choices', [])}
    sides = [min(x['width'], x['height']) for x in images if 'width' in x]
    side = float(np.median(sides)) if sides else SIDE_OF_UNKNOWN
    search = Search(rules=_rules(side, request, kept),
                    max_side=request.max_side)
    plan = Plan(folder, images, side, search, devices, architecture,
                init_report, earlier, kept)
    settings, cfg = final_settings(run, request, plan, images)  # checks all
    return plan._replace(is_finished=bool(kept) and (
        run.latest()[1] >= cfg.train_cfg.max_epochs))


def _launched(devices: Devices, request: Request) -> Devices:
    """Return the devices if a launcher has started a process for each."""
    wanted = str(request.devices)
    if wanted not in ('auto', 'cpu'):
        raise ValueError(
            f"--devices is '{wanted}', but {request.launcher} has started "
            "the processes: leave it out, or use 'cpu'")
    count = int(os.environ['WORLD_SIZE'])
    return devices._replace(
        count=count, text=f'{count} x {devices.kind}',
        visible='' if wanted == 'cpu' else None,
        reason=f'started by {request.launcher}')


def _rules(side: float, request: Request, kept: dict) -> ProposalRules:
    values = dict(min_size=kept.get(
        'object size', choose_min_size(side).value))
    for key, value in request.overrides.items():
        if key.startswith(RULES):
            values[key[len(RULES):]] = value
    try:
        return ProposalRules(**values)
    except TypeError:
        raise ValueError(
            f'--set {RULES}…: the rules are min_size, max_aspect_ratio and '
            'iou_thr') from None


def _with_sizes(folder: str, images: list[dict]) -> list[dict]:
    """Read the sizes of images that have none, as in some jsons."""
    unknown = [x for x in images if 'width' not in x]
    if not unknown or len(unknown) < len(images):
        return images  # a folder: the file has no readable header
    for image in track(unknown, desc='reading sizes'):
        size = read_size(image_path(folder, image['file_name']))
        if size:
            image['width'], image['height'] = size
    return images


def final_settings(run: RunFolder, request: Request, plan: Plan,
                   images: Sequence[dict]) -> tuple[Settings, Config]:
    """Choose the settings for readable images, and return their config.

    A config that the user has edited is returned as it is, and its values
    take the place of the chosen ones.

    Raises:
        ValueError: The settings do not fit each other, or a config cannot be
            used.
    """
    usable = _usable(images, plan.search.rules.min_size)
    settings = Settings(
        plan.folder, plan.architecture, plan.devices, plan.search.rules,
        choose(request, plan, usable), request.overrides,
        request.init is not None, request.init_partial)
    edited = read_edited(run)
    if edited is not None:
        _check_devices(run, plan)
    with _values_checked(request, edited is not None):
        cfg = build_config(settings) if edited is None else edited
        check_built(cfg, plan.devices)
        choices = refresh(settings.choices, cfg, plan.devices.count, usable)
    return settings._replace(choices=choices), cfg


@contextmanager
def _values_checked(request: Request, is_edited: bool = False
                    ) -> Iterator[None]:
    """Report errors of the network and MMEngine as errors of the values."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, AssertionError) as e:
        if not request.overrides and not is_edited:
            raise
        source = "'config.py', which you have changed" if is_edited else (
            f'--set {", ".join(map(printable, request.overrides))}')
        raise ValueError(
            f'{source}: a value does not fit ({type(e).__name__}: '
            f"{excerpt(str(e))}): compare with '{config_path(BASE)}'"
        ) from None


def _check_devices(run: RunFolder, plan: Plan) -> None:
    """Refuse other devices than those that an edited config was made for."""
    before = (plan.earlier or {}).get('devices')
    if before not in (None, plan.devices.count):
        raise ValueError(
            f"'{printable(run.config)}', which you have changed, was written "
            f'for {before} devices, now {plan.devices.count}: use as many '
            '--devices, or remove the file to have it written again')


def refresh(choices: dict[str, Choice], cfg: Config, devices: int,
            images: int) -> dict[str, Choice]:
    """Return the choices with the values of a config."""
    loader, wrapper = cfg.train_dataloader, cfg.optim_wrapper
    values = {
        'batch size': loader.batch_size * devices,
        'epochs': cfg.train_cfg.max_epochs,
        'learning rate': wrapper.get('optimizer', {}).get('lr'),
        'EMA momentum': cfg.model.get('base_momentum'),
        'warm-up': _warmup(cfg),
        'workers': loader.get('num_workers'),
        'batch norm': 'SyncBN' if [*parts_of_type(
            cfg.model, 'SyncBN', 'model')] else 'BN',
        'precision': wrapper.get('dtype', 'float16') if wrapper.get(
            'type') == 'AmpOptimWrapper' else 'float32',
        'graph': cfg.model.get('graph')}
    values['steps'] = values['epochs'] * steps_per_epoch(
        images, values['batch size'], devices)
    return {name: x._replace(value=values[name], reason='set by you')
            if name in values and values[name] != x.value else x
            for name, x in choices.items()}


def _warmup(cfg: Config) -> Union[int, str]:
    """Return the epochs in which the learning rate rises."""
    first = [*cfg.get('param_scheduler', []), {}][0]
    if first.get('type') != 'LinearLR':
        return 0
    return first['end'] if first.get('by_epoch') else f'{first["end"]} steps'


def _usable(images: Sequence[dict], min_size: int) -> int:
    """Return the number of images that the data set does not drop."""
    least = min(64, min_size)
    return sum('width' not in x or min(x['width'], x['height']) >= least
               for x in images)


def read_init(request: Request, architecture: Architecture,
              only_structure: bool = False) -> InitialWeights:
    """Read the weights of ``--init`` with the names of the backbone.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: It cannot be read, or does not fit.
    """
    cfg = build_base(architecture, request.overrides).model.backbone
    with DefaultScope.overwrite_default_scope('univip_mm'), \
            _values_checked(request):
        backbone = MODELS.build(cfg)
    return read_initial_weights(
        request.init_path, backbone, request.init_partial,
        only_structure=only_structure)


def choose(request: Request, plan: Plan, images: int) -> dict[str, Choice]:
    """Return the choices by name, in the order in which they are shown.

    ``images`` is the number of images that the training can use.
    """
    devices, kept = plan.devices, plan.kept
    batch_size = choose_batch_size(
        images, devices.count, *_wanted(request.batch_size, kept,
                                        'batch size'))
    per_epoch = steps_per_epoch(images, batch_size.value, devices.count)
    epochs = choose_epochs(per_epoch, *_wanted(request.epochs, kept, 'epochs'))
    steps = Choice('steps', epochs.value * per_epoch,
                   f'{per_epoch} per epoch', '')
    choices = [
        Choice('architecture', request.arch, plan.architecture.reason,
               '--arch'),
        Choice('devices', devices.text, devices.reason, '--devices'),
        batch_size, epochs, steps, choose_learning_rate(
            batch_size.value, plan.architecture.learning_rate),
        choose_momentum(batch_size.value, steps.value),
        choose_warmup(epochs.value, plan.architecture.warmup_epochs),
        choose_workers(devices.count),
        _choose_norm(devices),
        choose_min_size(plan.side, plan.search.rules.min_size)]
    if devices.bfloat16:
        choices.append(Choice(
            'precision', 'bfloat16', 'the devices support it',
            '--set optim_wrapper.type=OptimWrapper'))
    if devices.kind == 'cuda' and request.arch.startswith(TRACED):
        choices.append(Choice(
            'graph', 'cuda_graph', 'the step is captured once and replayed',
            '--set model.graph=None'))
    if large := plan.search.count_large(plan.images):
        choices.append(Choice(
            'max side', 'auto',
            f'{large} large images are searched in a reduced copy',
            '--max-side'))
    return {choice.name: choice for choice in choices}


def _wanted(value: Union[int, str], kept: dict,
            name: str) -> tuple[Optional[int], str]:
    """Return a number that is not to be chosen, and its reason."""
    if value != 'auto':
        return value, 'as given'
    return kept.get(name), 'as when this run began'


def _choose_norm(devices: Devices) -> Choice:
    if devices.kind == 'cuda' and devices.count > 1:
        value, reason = 'SyncBN', 'several devices share their statistics'
    else:
        value, reason = 'BN', (
            'a single process' if devices.count == 1 else
            'SyncBN needs GPUs; each process has its own statistics')
    return Choice('batch norm', value, reason, '--devices')
