"""Processes, progress bars, safe unpickling and model wrappers."""
