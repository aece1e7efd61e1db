"""Batches for training: from the synthetic world, from question files, from photos."""
