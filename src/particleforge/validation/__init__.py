"""Validation stage."""
