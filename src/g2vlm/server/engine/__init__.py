"""One thread that owns the work of the model, and what waits for it."""
