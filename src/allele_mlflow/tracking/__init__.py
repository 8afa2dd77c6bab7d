"""
The room that knows MLflow: the only one that imports it.
"""
