"""
The memory-mapped queue: what a log call stores into, and what the sidecar reads.
"""
