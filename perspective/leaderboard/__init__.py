"""Tables and charts of clustering and retrieval results."""
