"""Hyperparameter search: ASHA as a static graph of one job per (rung, slot).

Each job is one training. Optuna keeps the record.
"""
