"""What stands between the configuration and Snakemake: questions of the rules, resources, status, the check of a site."""
