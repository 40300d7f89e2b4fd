"""What made a file: its record, the chain of records back to the seeds, and that chain as text."""
