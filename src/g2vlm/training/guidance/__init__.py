"""Guided attention: where training tells some heads which tokens to look at."""
