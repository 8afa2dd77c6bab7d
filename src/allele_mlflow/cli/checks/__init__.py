"""
What `doctor` looks at: each check gives findings, and one that fails itself is a finding too.
"""
