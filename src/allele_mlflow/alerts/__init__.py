"""
Alerts: rules, their evaluation within a run, and the shapes in which others tell theirs. Pure: no
clock, no file, no process.
"""
