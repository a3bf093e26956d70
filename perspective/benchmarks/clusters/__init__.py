"""Stage 3 measured by labels: the number of clusters, their names, new texts."""
