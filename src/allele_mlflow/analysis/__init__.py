"""
What the runs say: comparison, ranking, power, change; pure functions on arrays and frames.
"""
