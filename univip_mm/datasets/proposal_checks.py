"""Checks that a data set's images, proposals and pipeline fit together."""
from collections.abc import Sequence
from typing import Callable, Optional

import numpy as np

from ..io.archive import cure_of_folder, is_file
from ..io.coco_json import image_path, sample_images
from ..proposals import ProposalFile


def check_image_ids(images: Sequence[dict], ann_file: str,
                    proposals: ProposalFile) -> None:
    """Raise ValueError if the proposals were made for other images."""
    missing = proposals.missing(np.array([image['id'] for image in images]))
    if len(missing):
        raise ValueError(
            f"the proposal file '{proposals.path}' lacks {len(missing)} of "
            f"the {len(images)} images of '{ann_file}' (the first: id "
            f'{missing[0]}): it was made for other images; run '
            'tools/generate_proposals.py with this ann_file')
    if renamed := proposals.renamed(images):
        raise ValueError(
            f"the proposal file '{proposals.path}' was made for other images: "
            f"{len(renamed)} of the {len(images)} ids of '{ann_file}' belong "
            f"to files of other names (the first: id {renamed[0]['id']}, now "
            f"'{renamed[0]['file_name']}'); run tools/generate_proposals.py "
            'with this ann_file')


def check_rules(proposals: ProposalFile,
                transforms: Sequence[Callable]) -> None:
    """Raise ValueError if a transform has other rules than the proposals.

    Transforms with an attribute ``rules`` are checked.
    """
    made_with = proposals.meta.get('rules')
    for transform in transforms:
        rules = getattr(transform, 'rules', None)
        if rules is not None and rules.as_dict() != made_with:
            raise ValueError(
                f"the proposals of '{proposals.path}' were made with "
                f'{_describe(made_with)}, but {type(transform).__name__} in '
                f'the config has {_describe(rules.as_dict())}: run '
                'tools/generate_proposals.py with these rules, or change the '
                'config')


def check_image_folder(folder: str, images: Sequence[dict]) -> None:
    """Raise FileNotFoundError if none of about ten images exists."""
    sample = sample_images(images)
    if not any(is_file(image_path(folder, image['file_name']))
               for image in sample):
        name = sample[0]['file_name']
        cure = cure_of_folder(folder, name, 'data_prefix.img_path')
        raise FileNotFoundError(
            f"no image '{name}' below '{folder}', nor any of "
            f'{len(sample) - 1} others that were tried: {cure}')


def _describe(rules: Optional[dict]) -> str:
    if not rules:
        return 'no rules'
    return ', '.join(f'{name}={value:g}' for name, value in rules.items())
