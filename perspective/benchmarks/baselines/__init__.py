"""What people would run instead: plain implementations, for measuring against."""
