"""
Resource samples of a process tree, its machine, its cgroup and its GPUs, taken from outside.
"""
