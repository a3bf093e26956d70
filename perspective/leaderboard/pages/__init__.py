"""The pages of README and docs/: their tables, figures and pictures, from committed JSON."""
