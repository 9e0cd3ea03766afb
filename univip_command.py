"""Entry point of the command ``univip``.

This module is outside of the package, so that ``univip -h`` and ``univip
doctor`` need neither PyTorch nor a host (see univip_mm/__init__.py).
"""
import os


def main() -> None:
    """Run the command that the first argument names."""
    host = os.environ.get('UNIVIP_HOST')
    os.environ['UNIVIP_HOST'] = 'none'
    from univip_mm.utils.command import run
    if host is None:
        del os.environ['UNIVIP_HOST']
    else:
        os.environ['UNIVIP_HOST'] = host
    run()
