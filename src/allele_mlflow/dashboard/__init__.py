"""
Pages on what MLflow and the spools hold: served to one person, mounted into MLflow's own server, or
written as files.
"""
