"""
Registry: genomes and components in MLflow's own registry, who put them where, and on what evidence.
"""
