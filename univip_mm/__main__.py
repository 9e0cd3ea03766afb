"""``python -m univip_mm``, the same as the command ``univip``."""
from .utils.command import run

if __name__ == '__main__':
    run()
