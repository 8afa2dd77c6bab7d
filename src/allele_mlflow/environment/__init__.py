"""
Where a benchmark runs: one fingerprint, and whether two of them allow a comparison of timings.
"""
