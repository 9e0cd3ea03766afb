"""A progress bar with the rate and the time left."""
import sys
from collections.abc import Iterable
from typing import Optional

from tqdm import tqdm


def track(items: Iterable, total: Optional[int] = None, unit: str = 'image',
          **kwargs) -> tqdm:
    """The items, with a progress bar on the standard error.

    Where that is no terminal, as in the log of a job, the bar is a line every
    half a minute.

    Args:
        items (Iterable): The items.
        total (int, optional): Their number. Defaults to None, ``len(items)``.
        unit (str): What an item is called. Defaults to 'image'.
        **kwargs: For :class:`tqdm.tqdm`.
    """
    interval = 0.2 if sys.stderr.isatty() else 30
    return tqdm(items, total=total, unit=unit, mininterval=interval,
                maxinterval=interval, **kwargs)
