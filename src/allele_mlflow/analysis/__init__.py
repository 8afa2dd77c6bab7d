"""
Analysis: what many runs say together. Pure functions on arrays and frames; no clock, file or store.
"""
