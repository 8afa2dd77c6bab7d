"""
Analysis: what many runs say together. `frames` and `selection` read the store; all else is pure
functions on arrays and frames.
"""
