"""Hpo stage."""
