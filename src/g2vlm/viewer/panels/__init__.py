"""The controls beside the picture, one module per tab."""
