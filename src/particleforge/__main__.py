"""``python -m particleforge``: the command line."""

from particleforge.cli import main

main()
