"""What can be evaluated: the model itself, simple methods, saved predictions, other people's models."""
