"""Checks of the dataset and of the training shards: what they must keep to before anything is
trained on them.
"""
