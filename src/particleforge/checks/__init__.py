"""Checks that the dataset and the training shards must pass before anything is trained on them."""
