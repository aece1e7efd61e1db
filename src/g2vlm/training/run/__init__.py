"""Running a recipe: steps, states on disk, logs, several processes."""
