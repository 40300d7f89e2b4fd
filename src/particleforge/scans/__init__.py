"""Scans: many small trainings that answer one question about the network.

Each is a target of the workflow.
"""
