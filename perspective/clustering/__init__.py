"""Clustering of vectors: k-means and its initialisation, Ward, the number of clusters, distances."""
