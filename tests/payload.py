"""Pickle that runs a command if it is read unsafely."""
import os


class Payload:
    """Object that creates a file when it is unpickled unsafely."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}', )
