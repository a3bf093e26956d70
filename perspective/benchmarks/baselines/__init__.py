"""Plain implementations of common alternatives, to measure against."""
