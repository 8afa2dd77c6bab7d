"""
Matrix suites: benchmarks over a grid of parameters, tracked as MLflow experiments.
"""
