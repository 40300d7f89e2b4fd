"""Reconstruction stage."""
