"""Preprocessing stage."""
