"""Clusters that a person can read: number, names, hierarchy, map, assignment of new texts, edits."""
