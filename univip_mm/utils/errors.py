"""One-line errors and warnings of the command-line tools."""
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from .processes import is_first_of_node
from .text import printable

# OSError names its file: no permission, a folder instead of a file, ...
USER_ERRORS = (ValueError, OSError)
# Also errors of missing packages and of killed workers.
ALL_ERRORS = (ValueError, ImportError, OSError, RuntimeError)


@contextmanager
def one_line_errors(if_stopped: str = '',
                    types: tuple = USER_ERRORS) -> Iterator[None]:
    """End the program with a one-line message on these errors and on Ctrl-C.

    Control characters in the message, for example of a file name, are escaped.

    ``if_stopped`` is the message after Ctrl-C; without it, Python handles
    Ctrl-C. All other errors keep their traceback.
    """
    try:
        yield
    except types as e:
        raise SystemExit(f'error: {printable(e)}') from None
    except KeyboardInterrupt:
        if not if_stopped:
            raise
        if is_first_of_node():
            print(f'\nstopped; {if_stopped}', file=sys.stderr)
        raise SystemExit(130) from None


def warn(text: str) -> None:
    """Log a warning in one line, on one rank of each node."""
    if is_first_of_node():
        logging.getLogger(__name__).warning(printable(text))
