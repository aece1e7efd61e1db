"""Training and evaluation data: samples, the synthetic world, questions about it, and question files."""
