"""Selection stage."""
