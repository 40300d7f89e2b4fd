"""Scans: many small trainings that answer one question about the network, each a target of the
workflow.
"""
