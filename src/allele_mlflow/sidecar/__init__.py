"""
The sidecar: finds runs in the spool and delivers them. Empty here, for `launch` must stay light.
"""
