"""End of a data loader's worker processes."""
from typing import Any


def stop_workers(loader: Any) -> None:
    """Stop the worker processes of a data loader that keeps them.

    Call this function before the program ends: on a GPU, PyTorch would wait
    5 s for each persistent worker that nobody has stopped.
    """
    # The loader has no public method for this.
    iterator = getattr(loader, '_iterator', None)
    if iterator is not None:
        iterator._shutdown_workers()
