"""The comparisons of `tests/benchmark_speed.py`, a file a stage."""
