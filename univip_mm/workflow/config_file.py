"""The config of a run: the COCO recipe with the settings of the run."""
import difflib
import hashlib
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict
from types import MappingProxyType
from typing import Any, NamedTuple, Optional

from mmengine.config import Config
from mmengine.registry import DefaultScope

from ..engine.architectures import Architecture
from ..engine.config import parts_of_type
from ..engine.network_check import PARTS
from ..engine.training_checks import check_training
from ..io.atomic import atomic_write
from ..io.boxes import ProposalRules
from ..io.configs import config_path
from ..registry import MODELS
from ..utils.text import excerpt, printable
from .recipe import Choice, Devices, checkpoint_interval
from .run_folder import RunFolder

BASE = 'univip_r50_coco.py'
# MMEngine replaces this by the folder of the config.
HERE = '{{ fileDirname }}'
RULES = 'proposal_rules.'
# Keys of the config that are options of the command.
_OPTIONS = {
    'train_cfg.max_epochs': '--epochs', 'work_dir': '--out',
    'train_dataloader.batch_size': '--batch-size', 'load_from': '--init',
    'resume': '--resume', 'launcher': '--devices'}
_MARK = '# Digest of the lines below: '
LOG_LINES = 200  # of a training, at least, if it has as many steps


class Settings(NamedTuple):
    """All that the config of a run depends on.

    Attributes:
        folder (str): Folder of the images, absolute.
        architecture (Architecture): The network.
        devices (Devices): The devices.
        rules (ProposalRules): Rules of the proposals.
        choices (dict[str, Choice]): The chosen settings by name.
        overrides (Mapping[str, Any]): Values by dotted key of the config,
            which win over all others.
        has_init (bool): The backbone starts from OUT/init.pth.
        init_partial (bool): Only a part of these weights fits.
    """
    folder: str
    architecture: Architecture
    devices: Devices
    rules: ProposalRules
    choices: dict[str, Choice]
    overrides: Mapping[str, Any]
    has_init: bool = False
    init_partial: bool = False


def build_config(settings: Settings) -> Config:
    """Return the complete config of a run.

    Raises:
        ValueError: An override does not fit the config.
    """
    cfg = build_base(settings.architecture)
    for options in (_data_options(settings), _training_options(settings),
                    _device_options(cfg, settings)):
        cfg.merge_from_dict(options)
    cfg.train_dataloader.dataset.pipeline = _pipeline(cfg, settings)
    cfg.param_scheduler = _schedules(settings)
    _check_overrides(settings.overrides, cfg)
    cfg.custom_hooks = [dict(type='ReportHook', out=HERE)]
    cfg.auto_scale_lr.base_batch_size = settings.choices['batch size'].value
    for name in ('data_root', 'proposal_rules', 'train_pipeline'):
        cfg.pop(name)  # a change of these copies would have no effect
    _override(cfg, settings.overrides)
    return cfg


def build_base(architecture: Architecture,
               overrides: Mapping[str, Any] = MappingProxyType({})) -> Config:
    """Return the COCO recipe with another network."""
    cfg = Config.fromfile(config_path(BASE))
    cfg.merge_from_dict(deepcopy(architecture.options))  # it pops _delete_
    _override(cfg, overrides)
    return cfg


def check_built(cfg: Config, devices: Devices) -> None:
    """Run the checks of a training that need no data.

    Raises:
        ValueError: One line with the key, the fault and the cure.
    """
    cfg = Config(cfg.to_dict())
    cfg.launcher = 'none' if devices.count == 1 else 'pytorch'
    check_training(cfg)


def checkpoint_bytes(cfg: Config) -> int:
    """Return about the size of a checkpoint, in bytes.

    It has the online branch, the target branch, and one or two moments of the
    optimizer, of 4 bytes per number.
    """
    with DefaultScope.overwrite_default_scope('univip_mm'):
        parts = [MODELS.build(cfg.model[name]) for name in PARTS
                 if name in cfg.model]
    return 4 * 4 * sum(x.numel() for part in parts for x in part.parameters())


def write_config(cfg: Config, settings: Settings, run: RunFolder) -> None:
    """Write the config, with the reasons of its settings as a comment."""
    lines = ['Written by "univip pretrain". A change of this file is kept.',
             'Train it with "univip pretrain" again, or with tools/train.py.',
             '']
    for choice in settings.choices.values():
        lines.append(f'{choice.name}: {choice.value} ({choice.reason})')
    text = ''.join(f'# {printable(x)}'.rstrip() + '\n' for x in lines)
    text = f'{text}\n{cfg.pretty_text}'
    with atomic_write(run.config, 'w') as file:
        file.write(f'{_MARK}{_digest(text)}\n{text}')


def read_edited(run: RunFolder) -> Optional[Config]:
    """Return the config that the user has edited, None if it is ours.

    Raises:
        ValueError: It cannot be used.
    """
    if not is_edited(run):
        return None
    try:
        cfg = Config.fromfile(run.config)
        _ = cfg.train_cfg.max_epochs, cfg.train_dataloader.batch_size
    except Exception as e:  # it is code
        raise ValueError(
            f"'{printable(run.config)}', which you have changed, cannot be "
            f'used ({type(e).__name__}: {excerpt(str(e))}): correct it, or '
            'remove it to have it written again') from None
    return cfg


def is_edited(run: RunFolder) -> bool:
    """Return True if the user has changed config.py since it was written."""
    if not run.config.exists():
        return False
    first, _, text = run.config.read_text('utf-8').partition('\n')
    return first != f'{_MARK}{_digest(text)}'


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _data_options(settings: Settings) -> dict:
    least = min(64, settings.rules.min_size)
    return {
        'train_dataloader.dataset': dict(
            data_root='', ann_file=f'{HERE}/images.json',
            proposal_file=f'{HERE}/proposals.npz',
            data_prefix=dict(img_path=settings.folder),
            **({'min_image_size': least} if least < 64 else {})),
        'work_dir': f'{HERE}/checkpoints',
    }


def _pipeline(cfg: Config, settings: Settings) -> list:
    pipeline = [dict(step) for step in cfg.train_pipeline]
    for step in pipeline:
        if step['type'] == 'OverlapSceneCrop':
            step.update(asdict(settings.rules))
    return pipeline


def _training_options(settings: Settings) -> dict:
    value = {name: x.value for name, x in settings.choices.items()}
    epochs, steps = value['epochs'], value['steps']
    options = {
        'train_dataloader.batch_size':
            value['batch size'] // settings.devices.count,
        'train_dataloader.num_workers': value['workers'],
        'train_cfg.max_epochs': epochs,
        'optim_wrapper.optimizer.lr': value['learning rate'],
        'model.base_momentum': value['EMA momentum'],
        'default_hooks.checkpoint.interval': checkpoint_interval(epochs),
        'default_hooks.logger.interval': max(1, min(50, steps // LOG_LINES)),
        'default_hooks.view_sheet.interval': max(1, min(50, epochs // 5)),
    }
    if settings.has_init:
        options['model.backbone.init_cfg'] = dict(
            type='Pretrained', checkpoint=f'{HERE}/init.pth',
            **({'partial': True} if settings.init_partial else {}))
    return options


def _device_options(cfg: Config, settings: Settings) -> dict:
    """Return the options of batch norm and of precision."""
    devices, options = settings.devices, {}
    if devices.kind == 'cpu' or devices.count == 1:
        for path, _ in parts_of_type(cfg.model, 'SyncBN', 'model'):
            options[f'{path}.type'] = 'BN' if 'backbone' in path else 'BN1d'
    wanted = settings.overrides
    if devices.bfloat16 and wanted.get(
            'optim_wrapper.type') != 'OptimWrapper':
        options |= {
            'optim_wrapper.type': 'AmpOptimWrapper',
            'optim_wrapper.dtype': 'bfloat16',
            'model.data_preprocessor.channels_last': True}
        if wanted.get('optim_wrapper.dtype', 'bfloat16') == 'bfloat16':
            options['optim_wrapper.loss_scale'] = dict(enabled=False)
    if graph := settings.choices.get('graph'):
        options['model.graph'] = graph.value
    return options


def _schedules(settings: Settings) -> list[dict]:
    warmup = settings.choices['warm-up'].value
    epochs = settings.choices['epochs'].value
    by_epoch = dict(by_epoch=True, convert_to_iter_based=True)
    rising = [dict(type='LinearLR', start_factor=1e-4, begin=0, end=warmup,
                   **by_epoch)] if warmup else []
    return [*rising, dict(type='CosineAnnealingLR', eta_min=0., begin=warmup,
                          end=epochs, **by_epoch)]


def _check_overrides(overrides: Mapping[str, Any], cfg: Config) -> None:
    """Raise ValueError for a key that would have no effect, or a wrong one."""
    for key in overrides:
        first = key.split('.')[0]
        if key in _OPTIONS:
            raise ValueError(f'--set {key}: use the option {_OPTIONS[key]}')
        if first not in cfg or key in ('proposal_rules', 'train_pipeline',
                                       'data_root'):
            close = difflib.get_close_matches(first, cfg, 1)
            known = f"did you mean '{close[0]}'?" if close else (
                'OUT/config.py of a run has all keys')
            if key == 'proposal_rules':
                known = f'write {RULES}min_size=…'
            raise ValueError(f'--set {printable(key)}: there is no such key; '
                             + known)


def _override(cfg: Config, overrides: Mapping[str, Any]) -> None:
    for key, value in overrides.items():
        if key.startswith(RULES):
            continue  # in settings.rules already
        try:
            cfg.merge_from_dict({key: value})
        except (KeyError, TypeError, AttributeError, IndexError) as e:
            raise ValueError(
                f'--set {printable(key)}: the config has no such key '
                f'({excerpt(str(e))}): see config.py of a run for the keys, '
                f"or '{config_path(BASE)}'") from None
