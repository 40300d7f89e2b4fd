"""Simulation stage."""
