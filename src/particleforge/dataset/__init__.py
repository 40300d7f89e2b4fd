"""Dataset stage."""
