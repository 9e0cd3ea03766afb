"""Differences between hosts and between their versions."""
