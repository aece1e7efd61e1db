"""Public programs that do the same work, and their speed beside ours."""
