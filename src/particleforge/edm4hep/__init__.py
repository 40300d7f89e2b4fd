"""Edm4hep stage."""
