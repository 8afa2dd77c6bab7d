"""
What the dashboard shows: one module a page, each from a query to a plain struct to a template.
"""
