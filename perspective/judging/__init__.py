"""Judges decide which of two choices is closer to a query from the user's perspective.

Each kind of judge has its own file and implements the protocol of `perspective.judging.protocol`. A
judge sees the texts and the instruction, never a label. The oracle, for analysis only, is the exception.
"""
