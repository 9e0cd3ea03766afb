"""Export of the backbone of a checkpoint to the formats of other libraries."""
import json
import os
import os.path as osp
import pickle
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple, Optional

import torch

from ..io.atomic import PathLike, atomic_write
from ..io.outputs import check_output_file
from ..utils.text import printable
from . import snippets
from .export_names import Renamed, to_detectron2, to_timm, to_torchvision
from .export_onnx import onnx_model
from .packages import import_package
from .source import BackboneSource, read_source

# Ends of the names of files, by format.
SUFFIXES = dict(
    mm='.pth', torchvision='_torchvision.pth', timm='_timm.pth',
    detectron2='_detectron2.pkl', safetensors='.safetensors', onnx='.onnx')
FORMATS = tuple(SUFFIXES)


class Exported(NamedTuple):
    """File with an exported backbone.

    Attributes:
        path (str): The file.
        name (str): Network in the library, or 'backbone'.
        weights (OrderedDict): State dict of the backbone.
        snippet (str): Python that loads the file in the library.
        config (dict): Config of the backbone in the training; empty if it is
            unknown.
    """
    path: str
    name: str
    weights: OrderedDict
    snippet: str
    config: dict = {}

    def describe(self, branch: str) -> str:
        """Return a line about the file."""
        numbers = sum(value.numel() for value in self.weights.values())
        return (f'{self.name}: {len(self.weights)} tensors, '
                f'{numbers / 1e6:.1f} million numbers, {branch} branch, '
                f'written to {printable(self.path)}')


def export(source: PathLike, out: Optional[PathLike] = None,
           format: str = 'mm', branch: str = 'online') -> str:
    """Write the backbone of a checkpoint for another library.

    Args:
        source (str or PathLike): OUT of ``univip pretrain``, a work dir, a
            checkpoint, or a backbone file of format 'mm'.
        out (str or PathLike, optional): File to write. Defaults to
            ``backbone`` with the suffix of the format, in OUT; for the
            checkpoint ``epoch_10.pth``, to ``backbone_epoch_10``.
        format (str): 'mm' (OpenMMLab), 'torchvision', 'timm', 'detectron2',
            'safetensors' or 'onnx'. Defaults to 'mm'.
        branch (str): 'online', the trained network, or 'target', its moving
            average. Defaults to 'online'.

    Returns:
        str: Path of the file.

    Raises:
        FileNotFoundError: There is no such checkpoint.
        ValueError: The format is unknown or does not fit the network, the
            checkpoint is of another method, a package is missing, or the file
            cannot be written.
    """
    return export_backbone(source, out, format, branch).path


def export_backbone(source: PathLike, out: Optional[PathLike] = None,
                    format: str = 'mm', branch: str = 'online',
                    config: Optional[PathLike] = None) -> Exported:
    """Write a backbone as :func:`export`, and describe the file.

    ``config`` is the config of the training, which is executed. ONNX needs it
    if the checkpoint has no config and the network is not a ResNet or ResNeXt.
    """
    if format not in FORMATS:
        raise ValueError(f"unknown format '{printable(format)}': choose one "
                         f'of {", ".join(FORMATS)}')
    if out is not None:
        check_output_file(out, 'the backbone')
    found = read_source(source, branch, config)
    if out is None:
        # A single checkpoint must not replace the result of a training.
        name = 'backbone' if osp.isdir(source) else _stem(found.path)
        if branch == 'target' and not name.endswith('_target'):
            name += '_target'
        out = osp.join(found.folder, f'{name}{SUFFIXES[format]}')
        check_output_file(out, 'the backbone')
    out = os.fspath(out)
    if osp.exists(out) and osp.samefile(out, found.path):
        raise ValueError(f"'{printable(out)}' is the checkpoint itself: give "
                         'another file with --out')
    try:
        return _WRITERS[format](found, out)._replace(config=found.backbone)
    except ValueError as e:
        raise ValueError(f"'{printable(found.path)}': {e}") from None


def _stem(path: str) -> str:
    """Return 'backbone_epoch_10' for 'epoch_10.pth'."""
    stem = osp.splitext(osp.basename(path))[0]
    return stem if stem.startswith('backbone') else f'backbone_{stem}'


def _write_mm(source: BackboneSource, out: str) -> Exported:
    save_backbone(source.weights, out, source.origin)
    return Exported(out, 'backbone', source.weights,
                    snippets.of_mm(source, out))


def save_backbone(weights: OrderedDict, out: PathLike, origin: dict) -> None:
    """Write a backbone in format 'mm', for the OpenMMLab packages.

    The file is a dict with ``state_dict`` and ``meta`` (the origin).
    """
    with atomic_write(out) as file:
        torch.save(dict(state_dict=weights, meta=origin), file)


def _write_torchvision(source: BackboneSource, out: str) -> Exported:
    renamed = to_torchvision(source.weights, source.backbone)
    _save_plain(renamed.weights, out, source.origin)
    return Exported(out, f'torchvision.models.{renamed.name}',
                    renamed.weights, snippets.of_torchvision(renamed, out))


def _write_timm(source: BackboneSource, out: str) -> Exported:
    renamed = to_timm(source.weights, source.backbone)
    _save_plain(renamed.weights, out, source.origin)
    return Exported(out, f'timm {renamed.name}', renamed.weights,
                    snippets.of_timm(renamed, out))


def _save_plain(weights: OrderedDict, out: str, origin: dict) -> None:
    """Write a plain state dict.

    The origin is in ``_metadata['']['source']``, which ``load_state_dict``
    ignores.
    """
    content = OrderedDict(weights)
    content._metadata = OrderedDict({'': dict(version=1, source=origin)})
    with atomic_write(out) as file:
        torch.save(content, file)


def _write_detectron2(source: BackboneSource, out: str) -> Exported:
    renamed = to_detectron2(source.weights, source.backbone)
    _pickle_arrays(renamed, out, source.origin)
    return Exported(
        out, f'detectron2 {renamed.name}', renamed.weights,
        snippets.of_detectron2(renamed, out, source.normalization))


def _pickle_arrays(renamed: Renamed, out: str, origin: dict) -> None:
    content = dict(
        model={name: value.numpy(force=True)
               for name, value in renamed.weights.items()},
        __author__='univip_mm', matching_heuristics=True, origin=origin)
    # NumPy 2 names a module that NumPy before 1.26 lacks, and that has the old
    # name in both. Protocol 3 has names as lines, and no frames.
    data = pickle.dumps(content, protocol=3).replace(
        b'cnumpy._core.multiarray\n', b'cnumpy.core.multiarray\n')
    with atomic_write(out) as file:
        file.write(data)


def _write_safetensors(source: BackboneSource, out: str) -> Exported:
    import_package('safetensors', 'this format')
    from safetensors.torch import save
    weights = {name: value.contiguous().clone()
               for name, value in source.weights.items()}
    metadata = {key: value if isinstance(value, str) else json.dumps(value)
                for key, value in source.origin.items()}
    with atomic_write(out) as file:
        file.write(save(weights, dict(metadata, format='pt')))
    return Exported(out, 'backbone', source.weights,
                    snippets.of_safetensors(out))


def _write_onnx(source: BackboneSource, out: str) -> Exported:
    data, outputs = onnx_model(source)
    with atomic_write(out) as file:
        file.write(data)
    return Exported(out, 'ONNX model', source.weights,
                    snippets.of_onnx(out, outputs))


_WRITERS: dict[str, Callable[[BackboneSource, str], Exported]] = dict(
    mm=_write_mm, torchvision=_write_torchvision, timm=_write_timm,
    detectron2=_write_detectron2, safetensors=_write_safetensors,
    onnx=_write_onnx)
