"""Measurements of tools/benchmarks/speed.py, one module per kind."""
