"""Data sets around :class:`ProposalCocoDataset`: repeated, joined, cut."""
import copy
from collections.abc import Sized
from typing import Any, Callable, Optional

import mmengine.dataset
from torch.utils.data import ConcatDataset

from ..registry import DATASETS
from .proposal_coco import ProposalCocoDataset


@DATASETS.register_module()
class RepeatDataset(mmengine.dataset.RepeatDataset):
    """MMEngine's ``RepeatDataset`` with new views in each repetition.

    An epoch of a data set that is repeated ``times`` times has the views of
    ``times`` epochs. Other data sets than :class:`ProposalCocoDataset` are
    repeated as by MMEngine.

    Args:
        dataset (BaseDataset or dict): The data set.
        times (int): Number of repetitions.
        lazy_init (bool): Do not read the files yet. Defaults to False.

    Raises:
        ValueError: ``times`` is below 1, or the data set is repeated already.
    """

    def __init__(self, dataset: Any, times: int,
                 lazy_init: bool = False) -> None:
        if times < 1:
            raise ValueError(f'RepeatDataset: times is {times}, but must be '
                             'at least 1')
        super().__init__(dataset, times, lazy_init)
        if _has_repeated(self.dataset):
            raise ValueError(
                'RepeatDataset: the data set is repeated already: use one '
                'RepeatDataset, and multiply the times')

    def _get_ori_dataset_idx(self, idx: int) -> int:
        repetition, index = divmod(idx, self._ori_len)
        for dataset in leaves(self.dataset):
            if isinstance(dataset, ProposalCocoDataset):
                dataset.repetition = repetition, self.times
        return index


def leaves(dataset: Any) -> list[Any]:
    """Return the data sets inside the wrappers, in order.

    Without a wrapper, this is the data set itself. Wrappers are
    ``ConcatDataset``, :class:`RepeatDataset` and the loader's option
    ``num_batch_per_epoch``.

    Raises:
        ValueError: Another wrapper has a :class:`ProposalCocoDataset`.
    """
    name = _inner_name(dataset)
    if name is None:
        return [dataset]
    return [leaf for part in _as_list(vars(dataset)[name])
            for leaf in leaves(part)]


def replace_leaves(dataset: Any, replace: Callable[[Any], Any]) -> Any:
    """Return a copy of the wrappers around other data sets.

    Raises:
        ValueError: As in :func:`leaves`.
    """
    name = _inner_name(dataset)
    if name is None:
        return replace(dataset)
    inner = vars(dataset)[name]
    new = ([replace_leaves(part, replace) for part in inner]
           if isinstance(inner, list) else replace_leaves(inner, replace))
    if name == '_dataset':  # copy.copy() of this class never returns
        return type(dataset)(new, len(dataset))
    copied = copy.copy(dataset)
    setattr(copied, name, new)
    return copied


def set_epoch(dataset: Sized, seed: int, epoch: int) -> None:
    """Set the seed and the epoch of the views, in all processes.

    Data sets without ``set_epoch`` are left as they are.

    Raises:
        ValueError: As in :func:`leaves`.
    """
    first_source = 0
    for leaf in leaves(dataset):
        if isinstance(leaf, ProposalCocoDataset):
            leaf.first_source = first_source
            first_source += len(leaf.proposals)
        if hasattr(leaf, 'set_epoch'):
            leaf.set_epoch(seed, epoch)


def _inner_name(dataset: Any) -> Optional[str]:
    """Return the attribute with the inner data sets, or None for a leaf."""
    if isinstance(dataset, ConcatDataset):
        return 'datasets'
    if isinstance(dataset, RepeatDataset):
        return 'dataset'
    attributes = getattr(dataset, '__dict__', {})
    if '_dataset' in attributes:  # num_batch_per_epoch
        return '_dataset'
    for name in ('dataset', 'datasets'):
        # Other data sets have no views or lists that could be lost.
        if not any(isinstance(leaf, ProposalCocoDataset)
                   for part in _as_list(attributes.get(name))
                   if hasattr(part, '__dict__')  # fast for a list of paths
                   for leaf in leaves(part)):
            continue
        cure = ('use ConcatDataset, RepeatDataset, or the option indices of '
                'ProposalCocoDataset')
        if isinstance(dataset, mmengine.dataset.RepeatDataset):
            cure = ("give its scope, type='univip_mm.RepeatDataset', which "
                    'gives each repetition other views')
        raise ValueError(
            f'a {type(dataset).__name__} of {type(dataset).__module__} '
            f'around ProposalCocoDataset is not supported: {cure}')
    return None


def _as_list(inner: Any) -> list[Any]:
    return list(inner) if isinstance(inner, (list, tuple)) else [inner]


def _has_repeated(dataset: Any) -> bool:
    name = _inner_name(dataset)
    return name is not None and (
        isinstance(dataset, RepeatDataset)
        or any(map(_has_repeated, _as_list(vars(dataset)[name]))))
