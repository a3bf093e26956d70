"""The comparisons of `perspective.benchmarks.speed_table`, one file per stage."""
