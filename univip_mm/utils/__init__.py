"""Processes, progress bars, errors, safe unpickling and model wrappers."""
