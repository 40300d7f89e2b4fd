"""Physics validation of the candidates against truth, targets and baseline (see ``validate``)."""
