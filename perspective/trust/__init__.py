"""Trust decided without labels: reliability of a judge, evidence from several sources, stability."""
