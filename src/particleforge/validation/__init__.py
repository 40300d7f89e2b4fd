"""Physics validation: the model's candidates against truth, the targets and the baseline (see
``validate``).
"""
