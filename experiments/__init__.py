"""Experiments: code, configs and results, one folder each."""
