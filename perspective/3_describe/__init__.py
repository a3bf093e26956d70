"""Stage 3: describe the clusters."""
