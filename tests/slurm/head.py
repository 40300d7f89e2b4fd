"""Snakemake whose Slurm executor looks at its jobs every second.

Left alone it waits ten seconds more after each look at which nothing had ended, and a chain of
short jobs mostly waits for that. Its jobs start the program itself.
"""

from snakemake.cli import main
from snakemake_executor_plugin_slurm import Executor

SECONDS = 1.0

Executor.next_seconds_between_status_checks = property(
    lambda self: SECONDS, lambda self, seconds: None
)

if __name__ == "__main__":
    main()
