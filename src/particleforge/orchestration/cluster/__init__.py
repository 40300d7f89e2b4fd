"""Preflight of a cluster: small jobs, submitted as the workflow does, say what a site got wrong."""
