"""Clusters that a person can read: number, hierarchy, assignment of new texts, edits."""
