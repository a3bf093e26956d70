"""Rerankers, which read a query and a document together: loading, training, and the scores that they teach with."""
