"""Processes, progress bars and other helpers."""
