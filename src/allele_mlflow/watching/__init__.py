"""
What spools, sidecars and runs that go on look like from outside, for commands and dashboard.
"""
