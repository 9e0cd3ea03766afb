"""A progress bar with the rate and the remaining time."""
import sys
from collections.abc import Iterable
from typing import Optional

from tqdm import tqdm


def track(items: Iterable, total: Optional[int] = None, unit: str = 'image',
          **kwargs) -> tqdm:
    """Iterate over items with a progress bar on stderr.

    If stderr is not a terminal, e.g. in the log of a job, the bar prints one
    line every 30 seconds. The arguments are those of :class:`tqdm.tqdm`.
    """
    interval = 0.2 if sys.stderr.isatty() else 30
    return tqdm(items, total=total, unit=unit, mininterval=interval,
                maxinterval=interval, **kwargs)
