"""Judges: which of two choices is closer to a query, by the user's perspective.

One file a kind of judge, all with the protocol of `perspective.judging.protocol`. A judge sees the
texts of a question and the instruction; it never sees a label or the gold answer.
"""
