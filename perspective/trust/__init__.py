"""Whom to trust, decided without labels: reliability of a judge, evidence of several sources, stability."""
