"""Transform that assigns an image to the train or the val split."""
from ..registry import TRANSFORMS


@TRANSFORMS.register_module()
class SetSplit:
    """Transform that sets ``split``, 'train' or 'val', for other datasets."""

    def __init__(self, split: str) -> None:
        self.split = split

    def __call__(self, results: dict) -> dict:
        """Return the results with ``split``."""
        return dict(results, split=self.split)
