"""One-line error messages of the command-line tools."""
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_line_errors(
        if_stopped: str = '',
        types: tuple = (ValueError, ImportError, OSError, RuntimeError),
) -> Iterator[None]:
    """End the program with a one-line message on expected errors and Ctrl-C.

    Usable as a decorator too.

    Args:
        if_stopped (str): What the user needs to know after Ctrl-C. Defaults
            to '', which leaves Ctrl-C to Python.
        types (tuple): Expected errors. All others keep their traceback.

    Raises:
        SystemExit: The block raised an expected error or was interrupted.
    """
    try:
        yield
    except types as e:
        raise SystemExit(f'error: {e}') from None
    except KeyboardInterrupt:
        if not if_stopped:
            raise
        print(f'\nstopped; {if_stopped}', file=sys.stderr)
        raise SystemExit(130) from None
