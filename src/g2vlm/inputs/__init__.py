"""Photos, videos and text made ready for the model."""
