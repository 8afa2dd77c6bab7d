"""
What a store knows of an execution, a run or an experiment, gathered for a report: from MLflow
alone, so on any machine that reads it.
"""
