"""Trust decided without labels: reliability of a judge, evidence from several sources, specificity of answer states."""
