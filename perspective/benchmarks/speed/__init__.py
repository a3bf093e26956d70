"""The comparisons of `-m perspective.benchmarks.speed_table`, a file a stage."""
