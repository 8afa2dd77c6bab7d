"""
Figures and reports of suites: frames in, figures and files of one piece out. Reads no store.
"""
