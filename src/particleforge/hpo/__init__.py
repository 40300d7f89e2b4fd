"""Hyperparameter search: ASHA as a static graph of one job per (rung, slot), each one training,
with Optuna as the record.
"""
