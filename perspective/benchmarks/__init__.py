"""Measurements of quality and speed, and the baselines that they compare with."""
