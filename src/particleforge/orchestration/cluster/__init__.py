"""Preflight of a cluster: small jobs, submitted as the workflow submits its own, say what a site
got wrong.
"""
