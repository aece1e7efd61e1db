"""Losses, stages, recipes and the one loop that trains them."""
