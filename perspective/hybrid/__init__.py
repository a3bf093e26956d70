"""M3: training of an embedder with three heads, its index files, search in three ways and their sums."""
