"""What stands between the configuration and Snakemake.

Answers to the rules, resources of jobs, status, the check of a site.
"""
